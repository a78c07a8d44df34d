"""What this machine gives a process: its CPUs, and the threads torch may use."""

from __future__ import annotations

import os


def cpus_here() -> int:
    """Return how many CPUs this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
