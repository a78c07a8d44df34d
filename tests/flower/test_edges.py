"""One device sends whatever hypothesis finds: the run ends as it should, and the device is named."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import hostile
from fed_asi.devices.edge import TEXT_CHARS
from fed_asi.results.store import RunStore
from fed_asi.results.summary import summarise
from fed_asi.results.table import table
from fed_asi.rounds import checkpoints
from fed_asi.workplace.address import run_fingerprint
from fed_asi.workplace.place import Workplace
from fed_asi.workplace.prepare import prepare
from memory_grid import Context, Error, MemoryGrid, Message, RecordDict, run_in_memory
from runs import small

HOSTILE = 1
GROUPS = [{"name": "all", "count": 3, "budget": "unlimited", "batch_size": 8, "micro_batch": 4}]
IMAGES = {"public": 32, "limit": 60, "test_limit": 32}
OUTCOMES = {"trained", "out-of-memory", "excluded", "failed", "timeout", "rejected", "killed"}


@dataclass(frozen=True)
class World:
    """A prepared fleet, and what its devices honestly answer to the first round's jobs."""

    place: Workplace
    honest: dict[int, RecordDict]  # by node


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    folder = tmp_path_factory.mktemp("world")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FED_ASI_FEATURES_DIR", str(tmp_path_factory.getbasetemp() / "features"))
        patch.setenv("FED_ASI_PROFILES_DIR", str(tmp_path_factory.getbasetemp() / "profiles"))
        settings = {"cohort": 3, "groups": GROUPS, "data": IMAGES, "compute": {"side_by_side": False}}
        place = prepare(small(rounds=1, **settings), folder / "workplace")
    honest: dict[int, RecordDict] = {}
    grid = MemoryGrid.of(3)

    def overheard(message: Message, context: Context) -> Message:
        reply = grid.app(message=message, context=context)
        honest[message.metadata.dst_node_id] = reply.content
        return reply

    grid.instead = dict.fromkeys(grid.configs, overheard)
    run_in_memory(place.config, place, folder / "honest", grid)
    return World(place, honest)


def run_with(world: World, folder: Path, reply: RecordDict | Error) -> None:
    """Do a run in which one device sends this reply, and see that it ends as it should."""
    grid = MemoryGrid.of(3)

    def answer(message: Message, context: Context) -> Message:
        node = message.metadata.dst_node_id
        if message.metadata.message_type == "query":
            return grid.app(message=message, context=context)
        hostile = node == grid.node_of(HOSTILE)
        return Message(reply if hostile else world.honest[node], reply_to=message)

    grid.instead = dict.fromkeys(grid.configs, answer)
    run_in_memory(world.place.config, world.place, folder, grid, tries=1)
    with RunStore.read(folder) as store:
        rows = {row.partition_id: row for row in store.device_rounds(1)}
        assert store.exit_code() == 0
        assert {i: rows[i].outcome for i in (0, 2)} == {0: "trained", 2: "trained"}
        assert rows[HOSTILE].outcome in OUTCOMES
        if rows[HOSTILE].outcome != "trained":
            assert rows[HOSTILE].cause
            assert rows[HOSTILE].cause.isprintable()
            assert len(rows[HOSTILE].cause) <= TEXT_CHARS + 20
        assert table(summarise(store), 120)
    fingerprint = run_fingerprint(world.place.config)
    kept = checkpoints.load(folder / "checkpoints", 1, fingerprint).tensors
    assert all(bool(torch.isfinite(tensor).all()) for tensor in kept.values())


def whatever(world: World) -> st.SearchStrategy[RecordDict | Error]:
    good = world.honest[7000 - 13 * HOSTILE]
    errors = st.builds(
        Error, st.integers(), st.one_of(st.none(), st.text(), hostile.many("ActorDied", 10**5))
    )
    return st.one_of(hostile.contents(good), hostile.contents(good), errors)


FOREVER = {"deadline": None, "suppress_health_check": list(HealthCheck)}


@settings(max_examples=25, **FOREVER)
@given(data=st.data())
def test_whatever_one_device_sends_the_run_ends_as_it_should(
    data: st.DataObject, world: World, tmp_path_factory: pytest.TempPathFactory
) -> None:
    run_with(world, tmp_path_factory.mktemp("run") / "run", data.draw(whatever(world)))


@pytest.mark.slow
@pytest.mark.computes
@settings(max_examples=1500, **FOREVER)
@given(data=st.data())
def test_whatever_one_device_sends_at_length(
    data: st.DataObject, world: World, tmp_path_factory: pytest.TempPathFactory
) -> None:
    run_with(world, tmp_path_factory.mktemp("run") / "run", data.draw(whatever(world)))
