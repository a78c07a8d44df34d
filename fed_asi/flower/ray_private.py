"""The private parts of Ray, and of Flower's Ray actor, that we use: PARTS lists them all.

Flower 1.41 puts an actor whose process died back into its pool, where every later message to it fails: a run
loses its workers one by one and says nothing. Ray can start such an actor anew; Flower does not ask it to.
"""

from __future__ import annotations

import inspect
import sys
from typing import Any

from fed_asi.flower.flower_private import ENGINE
from fed_asi.flower.private import Private

TEMP_DIR = "_temp_dir"  # of ray.init: where Ray's sockets are, whose paths must be short
ACTOR_PROCESS = "ray::ClientAppActor"  # how the command line of a worker's process begins
GONE = ("ActorUnavailable", "ActorDied", "WorkerCrashed")  # errors of a worker whose process is gone
OUT_OF_MEMORY = "OutOfMemory"  # of one that Ray ended


def _actor() -> Any:
    from flwr.simulation.ray_transport import ray_actor

    return ray_actor.ClientAppActor


def _init() -> set[str]:
    import ray

    return {TEMP_DIR} & set(inspect.unwrap(ray.init).__code__.co_consts)


def _errors() -> list[str]:
    from ray import exceptions

    return [name for name in (*GONE, OUT_OF_MEMORY) if hasattr(exceptions, f"{name}Error")]


def _printer() -> list[str]:
    from ray._private import worker

    return list(inspect.signature(worker.print_to_stdstream).parameters)


OPTIONS = Private(
    "flwr.simulation.ray_transport.ray_actor.ClientAppActor._default_options",
    "let Ray start workers anew that died",
    lambda: type(_actor()._default_options),
    dict,
)
PRINTER = Private(
    "ray._private.worker.print_to_stdstream",
    "keep Ray from printing that a worker died",
    _printer,
    ["data", "ignore_prefix"],
)
PARTS = (
    OPTIONS,
    PRINTER,
    Private("ray.init", "keep Ray's sockets in a short path", _init, {TEMP_DIR}),
    Private(
        "flwr.simulation.ray_transport.ray_actor.ClientAppActor.__ray_metadata__",
        "end a simulation's workers",
        lambda: f"ray::{_actor().__ray_metadata__.class_name}",
        ACTOR_PROCESS,
    ),
    Private("ray.exceptions", "tell a worker that died", _errors, [*GONE, OUT_OF_MEMORY]),
)


def keep_actors_alive() -> None:
    """Let Ray restart worker processes that die. Called when the ClientApp is loaded, before any starts.

    Where Flower does not simulate, nothing happens. Raises RunError where Ray or Flower has no place to say it:
    a run would lose its workers one by one.
    """
    if ENGINE in sys.modules:
        OPTIONS.need()
        _actor()._default_options["max_restarts"] = -1


def quieten() -> bool:
    """Keep Ray from printing that a worker died; return whether it can be: the round loop names device and cause."""
    if PRINTER.moved():
        return False
    from ray._private import worker

    shown: Any = worker
    shown.print_to_stdstream = _silent
    return True


def _silent(data: Any, ignore_prefix: bool) -> None:
    """Print nothing, with the parameters that Ray gives."""
