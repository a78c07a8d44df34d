"""Worker processes on this machine that do whole runs, one after another; a worker that dies is replaced.

A worker imports torch once. It ends with its parent process, however that ends, so that no run's folder stays locked.
It is stopped by SIGTERM, so that the run's records are closed properly.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from typing import NoReturn, Protocol

from fed_asi.allocator import keep_freed_memory
from fed_asi.studies.one_run import Ended, Said, Task, do_run

PATIENCE_SECONDS = 10.0  # for a worker to stop: longer than a step or a group of images takes
ORPHANED = 76  # exit code of a worker whose parent has ended

Event = tuple[str, Said | Ended]  # the run's name, and its report


class Workers(Protocol):
    """Workers that do runs: processes on this machine, or a cluster."""

    def free(self) -> int:
        """Return how many more runs may begin now."""

    def begin(self, name: str, task: Task) -> None:
        """Begin a run; its events are reported under this name."""

    def events(self, seconds: float) -> Iterator[Event]:
        """Yield what has happened; wait at most this many seconds for something to happen."""

    def stop(self) -> None:
        """End all runs in progress and all workers, leaving nothing behind."""


@dataclass(slots=True)
class _Worker:
    process: SpawnProcess
    pipe: Connection
    name: str | None = None  # of its current run


class LocalWorkers:
    """A number of processes on this machine, each of which does a run on the loop back end."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._workers: list[_Worker] = []

    def free(self) -> int:
        """Return how many more runs may begin now."""
        return self._count - sum(one.name is not None for one in self._workers)

    def begin(self, name: str, task: Task) -> None:
        """Begin a run in a free worker or in a new one."""
        for worker in [one for one in self._workers if one.name is None]:
            with contextlib.suppress(OSError):  # an idle worker that died; no run is affected
                worker.pipe.send(task)
                worker.name = name
                return
            self._drop(worker)
        worker = _started()
        worker.pipe.send(task)
        worker.name = name
        self._workers.append(worker)

    def events(self, seconds: float) -> Iterator[Event]:
        """Yield what the workers report. A worker that dies ends its run, with its signal or exit code as the cause."""
        busy = {one.pipe: one for one in self._workers if one.name is not None}
        for pipe in wait(list(busy), seconds):
            worker = busy[pipe]  # type: ignore[index]
            name = str(worker.name)
            try:
                said = worker.pipe.recv()
            except (EOFError, OSError):
                self._drop(worker)
                yield name, Ended(death_of(worker.process.exitcode), died=True)
                continue
            if isinstance(said, Ended):
                worker.name = None
            yield name, said

    def pids(self) -> list[int]:
        """Return the ids of the worker processes."""
        return [int(one.process.pid or 0) for one in self._workers]

    def stop(self) -> None:
        """Stop every worker, killing those that take too long; their runs can be resumed all the same."""
        for worker in self._workers:
            worker.process.terminate()
        until = time.monotonic() + PATIENCE_SECONDS
        for worker in self._workers:
            worker.process.join(max(0.0, until - time.monotonic()))
        for worker in list(self._workers):
            self._drop(worker)

    def _drop(self, worker: _Worker) -> None:
        worker.process.kill()
        worker.process.join()
        worker.pipe.close()
        self._workers.remove(worker)


def _started() -> _Worker:
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=serve, args=(there,), daemon=True)
    with _deaf_to_ctrl_c():
        process.start()
    there.close()
    return _Worker(process, here)


@contextlib.contextmanager
def _deaf_to_ctrl_c() -> Iterator[None]:
    """Make processes started inside the block ignore SIGINT from the start, so that they print no traceback."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    kept = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, kept)


def death_of(code: int | None) -> str:
    """Return why a run's worker process ended. code: its exit code, or minus a signal's number."""
    if code is not None and code < 0:
        try:
            name = signal.Signals(-code).name
        except ValueError:
            name = f"signal {-code}"
        why = "; the system does that where memory runs out" if name == "SIGKILL" else ""
        return f"its worker process was ended by {name}{why}"
    return f"its worker process ended with exit code {code}"


def serve(pipe: Connection) -> None:
    """Do the runs that arrive through a pipe, until it is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends Ctrl-C to all; the parent decides
    signal.signal(signal.SIGTERM, _stop)
    keep_freed_memory()
    threading.Thread(target=_end_with_parent, daemon=True).start()
    with contextlib.suppress(EOFError, OSError, KeyboardInterrupt):
        while True:
            task = pipe.recv()
            pipe.send(do_run(task, pipe.send))


def _stop(_signal: int, _frame: object) -> NoReturn:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # not twice: the records are being closed
    raise KeyboardInterrupt


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
    os._exit(ORPHANED)
