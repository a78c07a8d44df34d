"""Runs of a study on a Ray cluster: one task each, in a folder that every node sees under the same path."""

from __future__ import annotations

from collections.abc import Iterator

from fed_asi.flower.ray_tasks import RayTasks
from fed_asi.studies.one_run import Ended, Said, Task, do_run
from fed_asi.studies.workers import Event


class ClusterWorkers:
    """Workers on a Ray cluster. limit: of runs at once; None for one per CPU."""

    def __init__(self, address: str, limit: int | None = None) -> None:
        self._tasks = RayTasks(address, limit)

    def free(self) -> int:
        """Return how many more runs may begin now."""
        return self._tasks.free()

    def begin(self, name: str, task: Task) -> None:
        """Begin a run on any node."""
        self._tasks.begin(name, run_there, task)

    def events(self, seconds: float) -> Iterator[Event]:
        """Yield how runs ended; nodes do not report progress."""
        for name, ended, cause in self._tasks.ended(seconds):
            yield name, ended if cause is None else Ended(cause, died=True)

    def stop(self) -> None:
        """End all runs in progress and disconnect from the cluster."""
        self._tasks.stop()


def run_there(task: Task) -> Ended:
    """Return how a run ended. Called on the node that does the run."""
    return do_run(task, _untold)


def _untold(_said: Said) -> None:
    """Drop a progress report."""
