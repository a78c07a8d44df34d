"""What an error reply means: Flower's codes and texts of Ray or deployed devices, as outcome and cause."""

from __future__ import annotations

from fed_asi.flower.flower_private import NODE_UNAVAILABLE, RAISED
from fed_asi.flower.ray_private import GONE, OUT_OF_MEMORY

NO_NODE = "device unreachable (stopped, or no heartbeat)"


LATE = "timeout: "  # how a deployed device's reason begins when its deadline ended it (deploy/worker.py)


def meaning(code: int, reason: str) -> tuple[str, str]:
    """Return the outcome and cause an error reply stands for.

    code: Flower's: 0 unknown, 2 the app raised, 5 node gone. reason: its text, or what a device's own worker says.
    """
    if reason.startswith(LATE):
        return "timeout", reason.removeprefix(LATE)
    if RAISED in reason:  # its app raised, whatever the words
        return "failed", _first(reason.partition(RAISED)[2].removesuffix("'>"), code)
    if reason.startswith("killed"):
        return "killed", reason
    if OUT_OF_MEMORY in reason:
        return "killed", "out of memory: Ray ended its worker process"
    if is_gone(reason):
        return "killed", "its worker process died; another takes its place"
    return "failed", NO_NODE if code == NODE_UNAVAILABLE else _first(reason, code)


def is_gone(reason: str) -> bool:
    """Return whether an error reply means that a worker process died, rather than that the device failed."""
    return RAISED not in reason and any(word in reason for word in GONE)


def _first(text: str, code: int) -> str:
    """Return a text's first line that says something."""
    return next((line.strip() for line in text.splitlines() if line.strip()), f"Flower error {code}")
