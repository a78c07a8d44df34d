"""What a solver written in C prints by itself: standard output is a command's result, so it goes to standard error.

HiGHS prints the name of one of its functions now and then, whatever its options say. It would spoil the JSON of
`fed-asi plan` and tells a user nothing, so it is left out.
"""

from __future__ import annotations

import ctypes
import os
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import IO

CHATTER = b"HighsMipSolverData::"

_one_at_a_time = (
    threading.Lock()
)  # else the second to begin would put standard output back to where the first led it


@contextmanager
def beside_the_result() -> Iterator[None]:
    """Let what C code prints to standard output go to standard error when the block ends."""
    with _one_at_a_time:
        sys.stdout.flush()
        try:
            kept = os.dup(1)
        except OSError:  # there is no standard output
            yield
            return
        with tempfile.TemporaryFile() as said:
            try:
                _flush_c()
                os.dup2(said.fileno(), 1)
                yield
            finally:
                _flush_c()
                os.dup2(kept, 1)
                os.close(kept)
                _pass_on(said)


def _pass_on(said: IO[bytes]) -> None:
    """Write to standard error what was said, without the names of HiGHS's own functions."""
    said.seek(0)
    lines = [line for line in said if not line.startswith(CHATTER)]
    with suppress(OSError):  # there is no standard error
        os.write(2, b"".join(lines))


def _flush_c() -> None:
    """Write out what C's own buffers hold, which would come later otherwise."""
    with suppress(OSError, AttributeError, TypeError):  # Windows has no such library under no name
        ctypes.CDLL(None).fflush(None)
