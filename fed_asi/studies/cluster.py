"""Runs of a study on a Ray cluster: a task each, in a folder that every node sees under the same path."""

from __future__ import annotations

from collections.abc import Iterator

from fed_asi.flower.ray_tasks import RayTasks
from fed_asi.studies.one_run import Ended, Said, Task, do_run
from fed_asi.studies.workers import Event


class ClusterWorkers:
    """What does runs on a cluster. limit: of runs at once; None: one a CPU."""

    def __init__(self, address: str, limit: int | None = None) -> None:
        self._tasks = RayTasks(address, limit)

    def free(self) -> int:
        """Return how many runs may be begun now."""
        return self._tasks.free()

    def begin(self, name: str, task: Task) -> None:
        """Begin a run on some node."""
        self._tasks.begin(name, run_there, task)

    def events(self, seconds: float) -> Iterator[Event]:
        """Yield how runs ended; a node tells nothing on the way."""
        for name, ended, cause in self._tasks.ended(seconds):
            yield name, ended if cause is None else Ended(cause, died=True)

    def stop(self) -> None:
        """End every run at work and leave the cluster."""
        self._tasks.stop()


def run_there(task: Task) -> Ended:
    """Return how a run ended, on whatever node this is."""
    return do_run(task, _untold)


def _untold(_said: Said) -> None:
    """Tell nobody."""
