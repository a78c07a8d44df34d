"""The nodes' identities: each node is asked once; unknown or duplicate nodes are named and get no jobs."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pytest
from flwr.app import ConfigRecord, Context, Message, RecordDict

from fed_asi.errors import RunError
from fed_asi.flower.mail import Mail
from fed_asi.flower.nodes import Nodes
from memory_grid import Error, MemoryGrid, brief


def nodes_of(
    grid: MemoryGrid,
    notes: list[str],
    expected: int = 3,
    simulated: Callable[[], Mapping[int, int]] | None = None,
) -> Nodes:
    return Nodes(Mail(grid, brief()), expected, brief(), notes.append, simulated)


def answers(content: RecordDict | Error | None) -> Callable[[Message, Context], Message | None]:
    return lambda message, _context: None if content is None else Message(content, reply_to=message)


def test_nodes_are_found_by_the_devices_they_say_they_are() -> None:
    grid, notes = MemoryGrid.of(3), list[str]()
    nodes = nodes_of(grid, notes)
    nodes.find()
    assert nodes.of == {i: grid.node_of(i) for i in range(3)}
    assert nodes.ask() == []
    assert len(grid.sent) == 3  # nobody is asked twice
    assert notes == []


def test_a_simulations_nodes_are_known_once_one_has_answered() -> None:
    grid, notes = MemoryGrid.of(3), list[str]()
    devices = {grid.node_of(i): i for i in range(3)}
    nodes = nodes_of(grid, notes, simulated=lambda: devices if grid.sent else {})
    nodes.find()
    assert nodes.of == {i: grid.node_of(i) for i in range(3)}
    assert nodes.ask() == []
    assert len(grid.sent) == 1


@pytest.mark.parametrize(
    "known", [{}, {0: 0, 1: 1}, {7000: 0, 6987: 2, 6974: 1}], ids=["none", "few", "others"]
)
def test_what_a_simulation_does_not_know_is_asked(known: Mapping[int, int]) -> None:
    grid, notes = MemoryGrid.of(3), list[str]()
    nodes = nodes_of(grid, notes, simulated=lambda: known)
    nodes.find()
    assert nodes.of == {i: grid.node_of(i) for i in range(3)}
    assert len(grid.sent) == 3


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (RecordDict(), "it does not say which device it is"),
        (RecordDict({"who": ConfigRecord({"partition-id": "1"})}), "it is of another version than 1"),
        (
            RecordDict({"who": ConfigRecord({"version": 1, "partition-id": 7, "host": "h"})}),
            "h says it is device 7, of 3 from 0",
        ),
        (Error(2, "RunError: a reason\nand more\x1b[31m"), "RunError: a reason"),
        (Error(0, None), "Flower error 0"),
    ],
)
def test_a_node_that_is_nobody_is_named_once_and_the_others_work(
    content: RecordDict | Error, why: str
) -> None:
    grid, notes = MemoryGrid.of(3), list[str]()
    grid.instead[grid.node_of(1)] = answers(content)
    nodes = nodes_of(grid, notes)
    nodes.find()
    nodes.ask()
    assert set(nodes.of) == {0, 2}
    (note,) = notes
    assert note.startswith(f"node {grid.node_of(1)} gets no jobs: {why}")
    del grid.instead[grid.node_of(1)]
    nodes.ask()
    assert set(nodes.of) == {0, 1, 2}  # once it says who it is, it is one of them


def test_two_nodes_of_one_number_end_a_run_that_has_not_begun() -> None:
    grid = MemoryGrid({5: {"partition-id": 0}, 6: {"partition-id": 1}, 7: {"partition-id": 1}})
    with pytest.raises(RunError, match=r"^two nodes say they are device 1: give each its own partition-id$"):
        nodes_of(grid, []).find()


def test_in_a_run_that_has_begun_the_first_is_kept_and_the_other_named() -> None:
    grid, notes = MemoryGrid.of(3), list[str]()
    nodes = nodes_of(grid, notes)
    nodes.find()
    grid.configs = {**grid.configs, 9999: {"partition-id": 1}}
    grid.contexts[9999] = Context(1, 9999, {"partition-id": 1}, RecordDict(), {})
    for _ in range(2):
        assert nodes.ask() == [1]
        assert nodes.of[1] == grid.node_of(1)
    assert notes == ["node 9999 gets no jobs: it says it is device 1, as another node does"]
    grid.lost.add(grid.node_of(1))  # when the first has left, the other takes its place
    assert nodes.ask() == []
    assert nodes.of[1] == 9999


def test_a_node_that_never_answers_is_waited_for_once() -> None:
    grid, notes = MemoryGrid.of(3), list[str]()
    grid.instead[grid.node_of(2)] = answers(None)
    nodes = nodes_of(grid, notes)
    nodes.find()
    assert set(nodes.of) == {0, 1}
    asked = len(grid.sent)
    nodes.ask()
    assert len(grid.sent) == asked
    assert set(nodes.of) == {0, 1}


def test_a_node_that_left_is_forgotten_and_taken_in_again() -> None:
    grid, notes = MemoryGrid.of(3), list[str]()
    nodes = nodes_of(grid, notes)
    nodes.find()
    grid.lost.add(grid.node_of(0))
    nodes.ask()
    assert set(nodes.of) == {1, 2}
    grid.lost.clear()
    nodes.ask()
    assert set(nodes.of) == {0, 1, 2}
