"""What the kernel reports about this container's memory (control groups, versions 1 and 2)."""

from __future__ import annotations

from pathlib import Path

_V1 = Path("/sys/fs/cgroup/memory")
_V2 = Path("/sys/fs/cgroup")
_UNLIMITED = 1 << 60  # version 1 writes "no limit" as a huge number


def limit_bytes(v1: Path = _V1, v2: Path = _V2) -> int | None:
    """Return the container's memory limit in bytes, or None if there is none."""
    for path in (v2 / "memory.max", v1 / "memory.limit_in_bytes"):
        if path.exists():
            text = path.read_text().strip()
            return None if text == "max" or int(text) >= _UNLIMITED else int(text)
    return None


def killed_by_kernel_count(v1: Path = _V1, v2: Path = _V2) -> int:
    """Return how many processes of this container the kernel has killed because memory ran out."""
    for path in (v2 / "memory.events", v1 / "memory.oom_control"):
        if path.exists():
            counts = dict(line.split() for line in path.read_text().splitlines())
            return int(counts.get("oom_kill", 0))
    return 0
