"""What a solver written in C prints by itself: it goes to standard error, as standard output is a command's result.

HiGHS prints a line of its own now and then, whatever its options say, which would spoil the JSON of `fed-asi plan`.
"""

from __future__ import annotations

import ctypes
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

_one_at_a_time = (
    threading.Lock()
)  # else the second to begin would put standard output back to where the first led it


@contextmanager
def beside_the_result() -> Iterator[None]:
    """Let what C code prints to standard output go to standard error while the block lasts."""
    with _one_at_a_time:
        sys.stdout.flush()
        try:
            kept = os.dup(1)
        except OSError:  # there is no standard output
            yield
            return
        try:
            _flush_c()
            with suppress(OSError):  # there is no standard error
                os.dup2(2, 1)
            yield
        finally:
            _flush_c()
            os.dup2(kept, 1)
            os.close(kept)


def _flush_c() -> None:
    """Write out what C's own buffers hold, which would come later otherwise."""
    with suppress(OSError, AttributeError, TypeError):  # Windows has no such library under no name
        ctypes.CDLL(None).fflush(None)
