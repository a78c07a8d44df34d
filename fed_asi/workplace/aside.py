"""One call beside the main thread, which is stopped when the rest fails."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, Future
from contextlib import contextmanager
from typing import TypeVar

import torch

Found = TypeVar("Found")


Check = Callable[[], None]  # raises where what calls it is to stop


STOP_SECONDS = 5.0  # a group of images is done in less; only another process's store is waited for longer


@contextmanager
def aside(call: Callable[[Check], Found]) -> Iterator[Future[Found]]:
    """Do a call in a thread of its own, which is stopped where the block fails.

    call: gets what it must call often; that raises once it is to stop.
    """
    future: Future[Found] = Future()
    stop = threading.Event()

    def check() -> None:
        if stop.is_set():
            raise CancelledError

    def work() -> None:
        torch.set_num_threads(1)
        try:
            future.set_result(call(check))
        except BaseException as error:  # whoever waits for the result raises it
            future.set_exception(error)

    thread = threading.Thread(target=work, name="aside", daemon=True)
    thread.start()
    try:
        yield future
    except BaseException:
        stop.set()
        thread.join(STOP_SECONDS)
        raise
