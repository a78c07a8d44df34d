"""Calls spread over a Ray cluster, one task each, run once: if its process or node dies, a call is reported dead."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from fed_asi.errors import first_line
from fed_asi.flower.environment import QUIET
from fed_asi.flower.ray_start import start_ray


class RayTasks:
    """Tasks on a running cluster, or, where address is "local", on a Ray of this machine alone.

    limit: of tasks at once; None: as many as the cluster has CPUs.
    Raises RunError where Ray does not start or answer.
    """

    def __init__(self, address: str, limit: int | None = None) -> None:
        os.environ.update(QUIET)
        import ray

        self._ray: Any = ray
        arguments: dict[str, Any] = {"address": address, "logging_level": "ERROR", "log_to_driver": False}
        if address == "local":
            arguments |= {"num_cpus": limit, "include_dashboard": False}
        start_ray(arguments, lambda: None)
        self._limit = limit
        self._tasks: dict[Any, str] = {}

    def free(self) -> int:
        """Return how many tasks may be begun now."""
        limit = self._limit or int(self._ray.cluster_resources().get("CPU", 1))
        return max(0, limit - len(self._tasks))

    def begin(self, name: str, call: Callable[..., Any], *arguments: Any) -> None:
        """Begin a call of a function that every node can import, on one CPU of some node."""
        remote = self._ray.remote(num_cpus=1, max_retries=0)(_called)
        self._tasks[remote.remote(call, *arguments)] = name

    def ended(self, seconds: float) -> Iterator[tuple[str, Any, str | None]]:
        """Yield (name, result, None) of each call that is done, and (name, None, cause) of one that raised or died.

        seconds: to wait at most for the first.
        """
        if not self._tasks:
            return
        done: Sequence[Any]
        done, _ = self._ray.wait(list(self._tasks), num_returns=1, timeout=seconds)
        for task in done:
            name = self._tasks.pop(task)
            try:
                yield name, self._ray.get(task), None
            except Exception as error:  # Ray has an exception for every way a process, node or call ends
                yield name, None, f"its Ray task ended: {first_line(error)}"

    def stop(self) -> None:
        """End every task and leave the cluster."""
        for task in self._tasks:
            with contextlib.suppress(Exception):  # what is gone already cannot be cancelled
                self._ray.cancel(task, force=True)
        self._tasks.clear()
        self._ray.shutdown()


def _called(call: Callable[..., Any], *arguments: Any) -> Any:
    """Return what a call returns; Ray takes only functions written in Python."""
    return call(*arguments)
