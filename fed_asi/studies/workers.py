"""Worker processes of this machine that do whole runs, one after another; one that dies is replaced.

A worker imports torch once. It ends with the process that started it, however that ends, so that no run's folder stays
locked; and it is stopped by SIGTERM, which leaves the run's records in order.
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

from fed_asi.studies.one_run import Ended, Said, Task, do_run

PATIENCE_SECONDS = 10.0  # for a worker that is told to stop: a step or a group of images is done in less
ORPHANED = 76  # exit code of a worker whose parent is gone

Event = tuple[str, Said | Ended]  # which run, and what of it


class Workers(Protocol):
    """What does runs somewhere: in processes of this machine, or on a cluster."""

    def free(self) -> int:
        """Return how many runs may be begun now."""

    def begin(self, name: str, task: Task) -> None:
        """Begin a run; its events come under this name."""

    def events(self, seconds: float) -> Iterator[Event]:
        """Yield what has happened, waiting at most so long for something to happen."""

    def stop(self) -> None:
        """End every run at work and what does them; nothing is left behind."""


@dataclass(slots=True)
class _Worker:
    process: SpawnProcess
    pipe: Connection
    name: str | None = None  # of the run it is at


class LocalWorkers:
    """So many processes of this machine, each of which does a run on the plain loop."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._workers: list[_Worker] = []

    def free(self) -> int:
        """Return how many runs may be begun now."""
        return self._count - sum(one.name is not None for one in self._workers)

    def begin(self, name: str, task: Task) -> None:
        """Begin a run in a worker that is free, or in a new one."""
        for worker in [one for one in self._workers if one.name is None]:
            with contextlib.suppress(OSError):  # it has died since, which is no run's fault
                worker.pipe.send(task)
                worker.name = name
                return
            self._drop(worker)
        worker = _started()
        worker.pipe.send(task)
        worker.name = name
        self._workers.append(worker)

    def events(self, seconds: float) -> Iterator[Event]:
        """Yield what the workers say; one that dies in a run ends it, with the signal or code that it died of."""
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
        """Stop every worker; one that does not within some seconds is killed, and its run resumed all the same."""
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
    """Let processes started inside the block ignore SIGINT from their first moment on, and show no traceback."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    kept = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, kept)


def death_of(code: int | None) -> str:
    """Return the cause of a run whose worker process ended in it. code: its exit code, below 0 a signal's number."""
    if code is not None and code < 0:
        try:
            name = signal.Signals(-code).name
        except ValueError:
            name = f"signal {-code}"
        why = "; the system does that where memory runs out" if name == "SIGKILL" else ""
        return f"its worker process was ended by {name}{why}"
    return f"its worker process ended with exit code {code}"


def serve(pipe: Connection) -> None:
    """Do the runs that come through a pipe until it is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's Ctrl-C reaches everyone; the parent decides
    signal.signal(signal.SIGTERM, _stop)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    with contextlib.suppress(EOFError, OSError, KeyboardInterrupt):
        while True:
            task = pipe.recv()
            pipe.send(do_run(task, pipe.send))


def _stop(_signal: int, _frame: object) -> NoReturn:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # once is enough: the records are being closed
    raise KeyboardInterrupt


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
    os._exit(ORPHANED)
