"""What this machine gives a process: its CPUs, and the threads torch may use."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import wraps
from pathlib import Path
from typing import ParamSpec, TypeVar

import torch

_Given = ParamSpec("_Given")
_Found = TypeVar("_Found")


def cpus_here() -> int:
    """Return how many CPUs this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def machine_bytes() -> int:
    """Return how much memory this machine has, in bytes."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def memory_here() -> int:
    """Return how much memory this process may use, in bytes: the machine's, or a container's limit."""
    for limit in (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes")):
        with suppress(OSError, ValueError):  # not there, or "max"
            return min(machine_bytes(), int(limit.read_text()))
    return machine_bytes()


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Let torch use `count` threads inside the block; restore the number afterwards.

    A run sets the count because it decides the last bits of results; a caller of the library keeps their own setting.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def one_thread(work: Callable[_Given, _Found]) -> Callable[_Given, _Found]:
    """Return `work`, wrapped to run with one torch thread; the number of threads is restored afterwards.

    Meant for decompositions of many small matrices. LAPACK's threads synchronise after every column, so two of them
    beside a busy process take 20 to 100 times as long as one (docs/explanation/plan.md). Their number also decides the
    last bits.
    """

    @wraps(work)
    def alone(*args: _Given.args, **kwargs: _Given.kwargs) -> _Found:
        if torch.get_num_threads() == 1:
            return work(*args, **kwargs)
        with threads(1):
            return work(*args, **kwargs)

    return alone
