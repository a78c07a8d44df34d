"""The private parts of Flower's simulation engine that we use: PARTS lists them all.

The engine looks for waiting messages node by node ten times a second, and each of its workers waits up to a second
at the end: with many devices that is most of a short run. Both are replaced by quicker parts if the engine has the
expected form. The part that hands out messages then also knows which device each node is, so that nodes need not be
asked.
"""

from __future__ import annotations

import importlib
import inspect
import threading
from collections.abc import Mapping
from datetime import UTC, datetime
from queue import Queue
from typing import Any

from fed_asi.flower.private import Private

ENGINE = "flwr.server.superlink.fleet.vce.vce_api"  # loaded where Flower simulates, and nowhere else


def _engine() -> Any:
    return importlib.import_module(ENGINE)


def _link_state() -> Any:
    from flwr.server.superlink.linkstate import InMemoryLinkState

    return InMemoryLinkState


def _crashed() -> str:
    from flwr.clientapp.client_app import ClientAppException

    return str(ClientAppException("its words")).strip()


def _unavailable() -> object:
    from flwr.common.constant import ErrorCode

    return ErrorCode.NODE_UNAVAILABLE


def _held() -> set[str]:
    return {"lock", "message_ins_store"} & set(_link_state().__init__.__code__.co_names)


RAISED = "Exception ClientAppException occurred. Message: "  # before the words of a ClientApp that raised
NODE_UNAVAILABLE = 5  # the code of an error reply for a node that is gone


PARTS = (
    Private(
        f"{ENGINE}.add_messages_to_queue",
        "bring waiting messages to workers at once",
        lambda: list(inspect.signature(_engine().add_messages_to_queue).parameters),
        ["state", "queue", "nodes_mapping", "f_stop"],
    ),
    Private(f"{ENGINE}.Queue", "let workers end at once", lambda: issubclass(_engine().Queue, Queue), True),
    Private(
        "flwr.server.superlink.linkstate.InMemoryLinkState.get_message_ins",
        "take a waiting message, as this does, by saying when",
        lambda: {"delivered_at", "isoformat"} & set(_link_state().get_message_ins.__code__.co_names),
        {"delivered_at", "isoformat"},
    ),
    Private(
        "flwr.server.superlink.linkstate.InMemoryLinkState.__init__",
        "see which nodes have messages waiting",
        _held,
        {"lock", "message_ins_store"},
    ),
)
WORDS = (
    Private(
        "flwr.clientapp.client_app.ClientAppException",
        "name why a device's app raised",
        _crashed,
        f"{RAISED}its words",
    ),
    Private("flwr.common.constant.ErrorCode", "tell a node that is gone", _unavailable, NODE_UNAVAILABLE),
)


PAUSE_SECONDS, BRIEF_SECONDS = 0.01, 0.05


def quicken() -> bool:
    """Install the quicker parts; return whether the engine has the form they fit. Without them a run takes longer."""
    engine = _engine()
    if engine.add_messages_to_queue is add_messages_to_queue:
        return True
    if any(part.moved() for part in PARTS):
        return False
    engine.add_messages_to_queue = add_messages_to_queue
    engine.Queue = _BriefQueue
    return True


class _BriefQueue(Queue[Any]):
    """A queue whose readers look up often: at its end a simulation waits for each of them, a second by default."""

    def get(self, block: bool = True, timeout: float | None = None) -> Any:
        return super().get(block, None if timeout is None else min(timeout, BRIEF_SECONDS))


_simulated: list[Mapping[int, int]] = []  # of the engine that is at work in this process


def simulated_nodes() -> Mapping[int, int]:
    """Return the device of each node, by node id, according to the engine running in this process; else empty."""
    return _simulated[-1] if _simulated else {}


def add_messages_to_queue(
    state: Any, queue: Queue[Any], nodes_mapping: dict[int, int], f_stop: threading.Event
) -> None:
    """Move messages that wait for a node into the workers' queue, oldest first, until told to stop.

    The engine's own version searches all stored messages for each one that it takes.
    """
    _simulated.append(nodes_mapping)
    while not f_stop.is_set():
        for message in _waiting(state, nodes_mapping):
            queue.put(message)
        f_stop.wait(PAUSE_SECONDS)
    _simulated.remove(nodes_mapping)


def _waiting(state: Any, nodes: Mapping[int, int]) -> list[Any]:
    """Take the messages that wait for a node, oldest first; they count as delivered from now on."""
    with state.lock:
        found = [
            message
            for message in state.message_ins_store.values()
            if message.metadata.delivered_at == "" and message.metadata.dst_node_id in nodes
        ]
        now = datetime.now(UTC).isoformat()
        for message in found:
            message.metadata.delivered_at = now
    return found
