"""How the server waits for devices, and how it is told to stop."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass


class Interrupted(Exception):  # noqa: N818 - not an error: the user asked for it
    """The run was asked to stop."""


@dataclass(slots=True)
class Waiting:
    """How the server waits. parallel: devices at work at once; None: all of them.

    nodes_seconds: for the fleet to connect. start_seconds: for Ray and a worker's first imports on a busy machine,
    before the first reply. grace_seconds: beyond a device's deadline; a worker ends a hanging device itself, and
    afterwards the server gives up on it. restart_seconds, tries: for a worker that died, how long and how often to
    retry.
    one_by_one: fetch each reply separately, as one that cannot be unpacked would spoil those fetched with it.
    """

    stop: Callable[[], bool]
    parallel: int | None = None
    nodes_seconds: float = 300.0
    poll_seconds: float = 0.01
    start_seconds: float = 300.0
    grace_seconds: float = 30.0
    restart_seconds: float = 0.5
    tries: int = 40
    one_by_one: bool = False

    def pause(self, seconds: float = 0.0) -> None:
        """Wait for a moment, or longer. Raises Interrupted where the run is to stop."""
        if self.stop():
            raise Interrupted
        time.sleep(max(seconds, self.poll_seconds))
