"""What Flower's simulation engine lacks, added where it runs; without it in this process nothing happens.

Flower 1.41 puts an actor whose process died back into its pool, where every later message to it fails: a run
loses its workers one by one and says nothing. Ray can start such an actor anew; Flower does not ask it to.
"""

from __future__ import annotations

import inspect
import sys
import threading
from queue import Queue
from typing import Any

ENGINE = "flwr.server.superlink.fleet.vce.vce_api"


def keep_actors_alive() -> None:
    """Let Ray restart worker processes that die. Called when the ClientApp is loaded, before any starts."""
    if ENGINE not in sys.modules:
        return
    from flwr.simulation.ray_transport import ray_actor

    actor: Any = ray_actor.ClientAppActor
    actor._default_options["max_restarts"] = -1


PAUSE_SECONDS, BRIEF_SECONDS = 0.01, 0.05


KNOWN = ["state", "queue", "nodes_mapping", "f_stop"]


def quicken() -> bool:
    """Put the quicker part in; return whether the engine has the form it fits."""
    from flwr.server.superlink.fleet.vce import vce_api
    from flwr.server.superlink.linkstate import InMemoryLinkState

    found = list(inspect.signature(vce_api.add_messages_to_queue).parameters)
    if found != KNOWN or not hasattr(InMemoryLinkState, "get_message_ins"):
        return False
    engine: Any = vce_api
    engine.add_messages_to_queue = add_messages_to_queue
    engine.Queue = _BriefQueue
    return True


class _BriefQueue(Queue[Any]):
    """A queue whose readers look up often: at its end a simulation waits for each of them, a second by default."""

    def get(self, block: bool = True, timeout: float | None = None) -> Any:
        return super().get(block, None if timeout is None else min(timeout, BRIEF_SECONDS))


def add_messages_to_queue(
    state: Any, queue: Queue[Any], nodes_mapping: dict[int, int], f_stop: threading.Event
) -> None:
    """Move messages that wait for a node into the workers' queue, oldest first, until told to stop."""
    while not f_stop.is_set():
        with state.lock:
            waiting = [
                message.metadata.dst_node_id
                for message in state.message_ins_store.values()
                if message.metadata.delivered_at == "" and message.metadata.dst_node_id in nodes_mapping
            ]
        for node_id in waiting:
            for message in state.get_message_ins(node_id=node_id, limit=1):
                queue.put(message)
        f_stop.wait(PAUSE_SECONDS)


def quieten() -> None:
    """Keep Ray from printing that a worker died: the round loop names the device and the cause."""
    from ray._private import worker

    shown: Any = worker
    if hasattr(shown, "print_to_stdstream"):
        shown.print_to_stdstream = lambda *_lines, **_options: None
