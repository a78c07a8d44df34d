"""Redirects what a solver written in C prints: standard output is for a command's result.

HiGHS sometimes prints the name of one of its functions, whatever its options. That line would corrupt the JSON of
`fed-asi plan` and is of no use to the user, so it is dropped. Everything else goes to standard error.
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
)  # otherwise a second thread would restore standard output to the first one's redirection


@contextmanager
def beside_the_result() -> Iterator[None]:
    """Redirect what C code prints to standard output inside the block to standard error, when the block ends."""
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
    """Write the captured output to standard error, without the names of HiGHS's own functions."""
    said.seek(0)
    lines = [line for line in said if not line.startswith(CHATTER)]
    with suppress(OSError):  # there is no standard error
        os.write(2, b"".join(lines))


def _flush_c() -> None:
    """Flush the C library's own buffers, whose content would otherwise appear later."""
    with suppress(OSError, AttributeError, TypeError):  # on Windows no library can be opened without a name
        ctypes.CDLL(None).fflush(None)
