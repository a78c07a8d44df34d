"""What an error reply stands for: Flower's codes, Ray's words and deployed devices' own, as outcome and cause."""

from __future__ import annotations

NODE_UNAVAILABLE = 5  # Flower's code


NO_NODE = "device unreachable (stopped, or no heartbeat)"


LATE = "timeout: "  # how a deployed device's reason begins when its deadline ended it (deploy/worker.py)


def meaning(code: int, reason: str) -> tuple[str, str]:
    """Return the outcome and cause an error reply stands for.

    code: Flower's: 0 unknown, 2 the app raised, 5 node gone. reason: its text, or what a device's own worker says.
    """
    if reason.startswith(LATE):
        return "timeout", reason.removeprefix(LATE)
    if reason.startswith("killed"):
        return "killed", reason
    if "OutOfMemory" in reason:
        return "killed", "out of memory: Ray ended its worker process"
    if is_ray(reason):
        return "killed", "its worker process died; another takes its place"
    if code == NODE_UNAVAILABLE:
        return "failed", NO_NODE
    return "failed", (reason.splitlines() or [f"Flower error {code}"])[0]


def is_ray(reason: str) -> bool:
    """Whether an error reply tells of a worker process that is gone, not of what a device did."""
    return "ActorUnavailable" in reason or "ActorDied" in reason or "WorkerCrashed" in reason
