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

    nodes_seconds: for the fleet to come. start_seconds: of Ray and a worker's first imports on a busy machine, before
    a first reply can come. grace_seconds: beyond a device's deadline; a worker ends a hanging device itself, and what
    it could not, we give up on. restart_seconds, tries: until a worker that died is there again, asked so often.
    one_by_one: replies are fetched each by itself, as one that cannot be unpacked takes those fetched with it along.
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
