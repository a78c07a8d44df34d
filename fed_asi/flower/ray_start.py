"""Ray's start, with retries: it gives its own processes 30 seconds, which a busy machine may exceed.

Flower uses a Ray that is already running. If Flower starts it and that fails once, the run ends with "Simulation
Runtime crashed".
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from fed_asi.allocator import allocator_variables
from fed_asi.errors import ConfigError, RunError, first_line
from fed_asi.flower.object_store import check_stores

TRIES = 3


def start_ray(arguments: Mapping[str, Any], clear: Callable[[], None]) -> None:
    """Start Ray, or join the cluster whose address is among the arguments of `ray.init`.

    clear: ends what a failed start left behind. Where it runs in this process already, nothing happens.
    Raises RunError with Ray's own words when no try succeeds.
    """
    import ray

    if ray.is_initialized():
        return

    # Workers need this process's sys.path; Flower's own start does the same.
    path = os.pathsep.join([*sys.path, *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {"env_vars": {**allocator_variables(), "PYTHONPATH": path}}

    def clear_all() -> None:
        ray.shutdown()
        clear()

    with sigterm_kept():
        tried(lambda: ray.init(runtime_env=environment, **arguments), clear_all)


def join_cluster(arguments: Mapping[str, Any], sent_bytes: int, cpus_per_client: int) -> None:
    """Join the cluster whose address is among the arguments of `ray.init`.

    sent_bytes: of a round's tensors. Raises RunError where it is not reached, and ConfigError where the object store of
    one of its nodes has no room for what a run sends.
    """
    import ray

    start_ray(arguments, lambda: None)
    try:
        check_stores(_nodes(ray), sent_bytes, cpus_per_client)
    except ConfigError:
        ray.shutdown()
        raise


def _nodes(ray: Any) -> list[dict[str, Any]]:
    """Return a cluster's nodes; Ray gives no types for them."""
    found: list[dict[str, Any]] = ray.nodes()
    return found


@contextlib.contextmanager
def sigterm_kept() -> Iterator[None]:
    """Restore the handler of SIGTERM afterwards: Ray's own, in C++, prints a stack trace and aborts seconds later."""
    library, kept = ctypes.CDLL(None), ctypes.create_string_buffer(1024)  # above any struct sigaction
    library.sigaction(signal.SIGTERM, None, kept)
    try:
        yield
    finally:
        library.sigaction(signal.SIGTERM, kept, None)


def tried(begin: Callable[[], object], clear: Callable[[], object], tries: int = TRIES) -> None:
    """Call `begin`, retrying after `clear` if it raised; at last raise RunError with the first line of the error."""
    for left in reversed(range(tries)):
        try:
            begin()
            return
        except Exception as error:  # Ray raises bare Exceptions here
            clear()
            if not left:
                raise RunError(
                    f"Ray did not start in {tries} tries: {first_line(error)} "
                    "Free some memory or cores, or use --backend loop."
                ) from error
