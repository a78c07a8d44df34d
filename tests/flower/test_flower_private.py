"""The private parts of Flower in use: a part that has moved fails here by name."""

from __future__ import annotations

import threading
import warnings
from queue import Queue
from types import SimpleNamespace
from typing import Any

import pytest

from fed_asi.flower import flower_private
from fed_asi.flower.private import Private

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # Flower's own imports warn
    from flwr.server.superlink.fleet.vce import vce_api

PARTS = (*flower_private.PARTS, *flower_private.WORDS)


@pytest.mark.parametrize("part", PARTS, ids=[part.name for part in PARTS])
def test_each_part_of_flower_is_where_it_was(part: Private) -> None:
    assert part.moved() == ""


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The simulation engine as Flower has it, and again after the test."""

    def add_messages_to_queue(state: Any, queue: Any, nodes_mapping: Any, f_stop: Any) -> None: ...

    monkeypatch.setattr(vce_api, "add_messages_to_queue", add_messages_to_queue)
    monkeypatch.setattr(vce_api, "Queue", Queue)
    return vce_api


def test_the_engine_is_made_quicker_where_it_has_the_known_form(engine: Any) -> None:
    assert flower_private.quicken()
    assert engine.add_messages_to_queue is flower_private.add_messages_to_queue
    assert issubclass(engine.Queue, Queue)
    assert flower_private.quicken()  # twice is harmless


def test_another_form_is_left_as_it_is(engine: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def changed(state: Any, queue: Any) -> None: ...

    monkeypatch.setattr(engine, "add_messages_to_queue", changed)
    assert not flower_private.quicken()
    assert engine.add_messages_to_queue is changed
    assert engine.Queue is Queue


def test_waiting_messages_reach_the_workers_oldest_first() -> None:
    def message(node: int, delivered: str = "") -> Any:
        return SimpleNamespace(metadata=SimpleNamespace(dst_node_id=node, delivered_at=delivered))

    waiting = [message(1), message(2, "today"), message(3), message(1), message(9)]
    nodes, known, queue = {1: 0, 2: 1, 3: 2}, list[dict[int, int]](), Queue[Any]()

    class AfterTwoLooks(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            known.append(dict(flower_private.simulated_nodes()))
            if len(known) == 2:
                self.set()
            return True

    state = SimpleNamespace(lock=threading.Lock(), message_ins_store=dict(enumerate(waiting)))
    flower_private.add_messages_to_queue(state, queue, nodes, AfterTwoLooks())
    assert [queue.get_nowait() for _ in range(3)] == [waiting[0], waiting[2], waiting[3]]
    assert queue.empty()
    assert known == [nodes, nodes]  # which is known while the engine is at work
    assert flower_private.simulated_nodes() == {}
