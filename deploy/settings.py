"""What the containers of a fleet share: names, ports, folders, and how they log."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

from fed_asi.texts import visible_lines

FLEET_HOST = "superlink"  # the SuperLink as devices see it
OPERATOR_HOST = "superlink-operator"  # the SuperLink as the runner sees it, on a network without devices
PORT = 8443
OWN = Path("/own")  # this container's own volume, which no other mounts
TRUST = Path("/trust")  # published by the authority: its certificate and the nodes it enrolled
ENROL = Path("/enrol")  # the devices' public keys
RUNS = Path("/runs")
AFRESH = "to start afresh: docker compose down --volumes"


def insecure() -> bool:
    """Return whether the fleet was started with the compose profile "insecure"."""
    return "insecure" in os.environ.get("FED_ASI_PROFILES", "").split(",")


def warn_insecure(who: str) -> None:
    """Log which protection the profile "insecure" gives up."""
    say(who, "WARNING: profile 'insecure': no TLS and no node authentication, any device may join")


def say(who: str, text: str) -> None:
    """Print one line to the container's log immediately."""
    print(f"[{who}] {visible_lines(text)}", flush=True)


def fail(who: str, text: str, code: int = 2) -> int:
    """Print one line that says what is wrong and what to do; return the exit code."""
    print(f"[{who}] error: {visible_lines(text)}", file=sys.stderr, flush=True)
    return code


def wait_for(ready: Callable[[], bool], seconds: float, interval: float = 0.2) -> bool:
    """Return True as soon as `ready()` is true, or False if it is not within `seconds`."""
    deadline = time.monotonic() + seconds
    while not ready():
        if time.monotonic() > deadline:
            return False
        time.sleep(interval)
    return True
