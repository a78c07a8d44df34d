"""The C library's allocator: what a step frees stays with its process.

By default glibc gives large blocks back as soon as they are free. The next step then pays for fresh pages, which cost
more than a pass over them.
"""

from __future__ import annotations

import ctypes
import os

KEPT_BYTES = 1 << 30  # blocks up to this size are taken from the heap, and as much stays free at its end
VARIABLES = {"MALLOC_MMAP_THRESHOLD_": str(KEPT_BYTES), "MALLOC_TRIM_THRESHOLD_": str(KEPT_BYTES)}
_OPTIONS = {"MALLOC_MMAP_THRESHOLD_": -3, "MALLOC_TRIM_THRESHOLD_": -1}  # of mallopt, in glibc's malloc.h


def allocator_variables() -> dict[str, str]:
    """Return the environment for processes that are started to train, with what the user has set as it is."""
    return {name: os.environ.get(name, value) for name, value in VARIABLES.items()}


def keep_freed_memory() -> None:
    """Let this process keep what it frees, unless the user has set a variable; without glibc nothing happens."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if os.name == "posix" else None
    if mallopt is None:
        return
    for name, option in _OPTIONS.items():
        if name not in os.environ:
            mallopt(option, KEPT_BYTES)
