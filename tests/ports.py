"""Ports that stay free until the program they are meant for listens on them.

A port that the system chose may be given to another program as soon as it is released: Ray alone takes dozens of
them.
Ports below the system's own range are never handed out.
"""

from __future__ import annotations

import itertools
import os
import socket

FIRST, COUNT = 20_000, 12_000  # below 32,768, where Linux begins with those that it gives away
_tried = itertools.count(os.getpid() * 97)  # processes of one run of tests begin apart


def free_port() -> int:
    """Return a port of 127.0.0.1 that nothing listens on, another one each time."""
    for number in itertools.islice(_tried, COUNT):
        with socket.socket() as probe:
            port = FIRST + number % COUNT
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise RuntimeError("every port is taken")
