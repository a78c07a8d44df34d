"""One call in a second thread, which is stopped if the main one fails."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, Future
from contextlib import contextmanager
from typing import TypeVar

import torch

Found = TypeVar("Found")


Check = Callable[[], None]  # raises when its caller must stop


STOP_SECONDS = 5.0  # a group of images takes less; only waiting for another process's store takes longer


@contextmanager
def aside(call: Callable[[Check], Found]) -> Iterator[Future[Found]]:
    """Run a call in a thread of its own, which is stopped if the block fails.

    call: is given a function that it must call often, and that raises once it must stop.
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
        except BaseException as error:  # raised again by whoever waits for the result
            future.set_exception(error)

    thread = threading.Thread(target=work, name="aside", daemon=True)
    thread.start()
    try:
        yield future
    except BaseException:
        stop.set()
        thread.join(STOP_SECONDS)
        raise
