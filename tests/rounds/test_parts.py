"""Devices that train some channels only: what they send and receive, and which parts of a weight never move."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from fed_asi.devices.job import Job
from fed_asi.devices.parts import received
from fed_asi.devices.reply import Reply
from fed_asi.fleets.config import TrainConfig
from fed_asi.results.progress import Unwatched
from fed_asi.results.store import RunStore
from fed_asi.rounds import checkpoints
from fed_asi.rounds.executor import LoopExecutor
from fed_asi.rounds.run import conduct, recording, run_loop
from fed_asi.workplace.address import run_fingerprint, workplace_folder
from fed_asi.workplace.place import Workplace
from fed_asi.workplace.prepare import prepare
from memory_grid import MemoryGrid, run_in_memory
from runs import LATER, records, small

GROUPS = [{"name": "all", "count": 4, "budget": "24 KiB", "batch_size": 16, "micro_batch": 4}]
CHANNELS = {"name": "planner", "methods": ("channels",), "layers": 3, "centered": None}
DRAWN = CHANNELS | {"methods": ("channels(pick='round')",)}
UPDATES = ["step", "micro-batch", "layer"]


@pytest.fixture(autouse=True)
def _features(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FED_ASI_FEATURES_DIR", str(tmp_path_factory.getbasetemp() / "features"))


def of(method: dict[str, Any], update: str = "step") -> Any:
    config = small(rounds=3, cohort=3, groups=GROUPS, method=method)
    return config.model_copy(update={"train": TrainConfig(update=update)})


def places_moved(tensor: Tensor, reference: Tensor) -> tuple[list[int], int]:
    """Input channels (filters of a depthwise convolution) that differ, and how many there are."""
    dim = 1 if tensor.shape[1] > 1 else 0
    moved = (tensor != reference).transpose(0, dim).flatten(1).any(1)
    return moved.nonzero().flatten().tolist(), len(moved)


@pytest.mark.parametrize(
    "update", [pytest.param(one, marks=() if one == "layer" else LATER) for one in UPDATES]
)
def test_what_nobody_trains_stays_and_is_not_sent(update: str, tmp_path: Path) -> None:
    config = of(CHANNELS, update)
    run_loop(config, tmp_path)
    place = prepare(config, workplace_folder(tmp_path))
    with RunStore.read(tmp_path) as store:
        rounds, rows = store.rounds(), list(store.device_rounds())
    assert {row.outcome for row in rows} == {"trained"}
    assert {row.method for row in rows} == {"channels"} or all("channels" in str(row.method) for row in rows)
    now = checkpoints.load(tmp_path / "checkpoints", 3, run_fingerprint(config)).tensors
    moved = {name: places_moved(now[name], place.reference[name]) for name in now if now[name].dim() > 1}
    assert any(0 < len(found) < length for found, length in moved.values())
    assert all(len(found) > 0 for found, _ in moved.values())
    parts = sum(
        now[name].nbytes * len(found) // length + 4 * len(found) for name, (found, length) in moved.items()
    )
    vectors = sum(tensor.nbytes for tensor in now.values() if tensor.dim() == 1)
    assert rounds[3].bytes_down <= 3 * (parts + vectors + 400)  # a job's own JSON
    whole = sum(tensor.nbytes for tensor in place.reference.values())
    assert all(row.bytes_up < 0.8 * whole for row in rows)
    first, *later = [record.bytes_down for record in rounds[1:]]
    assert all(size < 0.8 * first for size in later)
    held = {row.accumulator_bytes for row in rows}
    assert max(held) < 0.8 * whole
    assert (held == {0}) == (update == "micro-batch")


def test_channels_drawn_anew_move_others_in_time(tmp_path: Path) -> None:
    config = of(DRAWN)
    run_loop(config, tmp_path)
    place = prepare(config, workplace_folder(tmp_path))
    with RunStore.read(tmp_path) as store:
        sent = [record.bytes_down for record in store.rounds()[1:]]
    now = checkpoints.load(tmp_path / "checkpoints", 3, run_fingerprint(config)).tensors
    moved = {name: places_moved(now[name], place.reference[name]) for name in now if now[name].dim() > 1}
    assert sent[1] < sent[0]  # round 2 sends what moved in round 1
    assert sent[2] > sent[1]  # and round 3 what moved in either
    assert any(len(found) > 1 for found, _ in moved.values())


MIX = {"name": "planner", "methods": ("channels(pick='round')", "vanilla"), "layers": 3, "centered": None}
GROUPED = [
    {"name": "tight", "count": 2, "budget": "24 KiB", "batch_size": 16, "micro_batch": 4},
    {"name": "roomy", "count": 2, "budget": "unlimited", "batch_size": 16, "micro_batch": 4},
]
MIXED = small(rounds=2, cohort=4, method=MIX, compute={"side_by_side": False}, groups=GROUPED)


class Listening:
    """A loop that keeps what came back; stop: the round that a power cut ends after its first reply."""

    parallel = 1

    def __init__(self, place: Workplace, states: Path, stop: int = 0) -> None:
        self._loop, self._stop = LoopExecutor(place, states), stop
        self.sent: dict[str, Tensor] = {}
        self.replies: list[Reply] = []

    def train(
        self, jobs: Sequence[Job], tensors: Mapping[str, Tensor], sizes: object = None
    ) -> Iterator[Reply]:
        self.sent, self.replies = dict(tensors), []
        for reply in self._loop.train(jobs, tensors):
            self.replies.append(reply)
            yield reply
            if jobs[0].round == self._stop:
                raise SystemError("the power went")


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Workplace, Listening, Path]:
    """A whole run of devices of which some train channels and others whole layers."""
    folder = tmp_path_factory.mktemp("mixed")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FED_ASI_FEATURES_DIR", str(tmp_path_factory.getbasetemp() / "features"))
        place = prepare(MIXED, folder / "workplace")
    listening = Listening(place, folder / "devices")
    with recording(MIXED, folder / "run", resume=False) as store:
        conduct(place, store, listening, Unwatched())
    return place, listening, folder / "run"


def test_parts_and_whole_layers_are_averaged_by_who_trained_each_place(
    mixed: tuple[Workplace, Listening, Path],
) -> None:
    place, listening, folder = mixed
    with RunStore.read(folder) as store:
        rows = {row.partition_id: row for row in store.device_rounds(2)}
    assert {row.outcome for row in rows.values()} == {"trained"}
    for row in rows.values():
        assert ("channels" in str(row.method)) == (row.budget_bytes is not None)
    tight = [reply for reply in listening.replies if reply.slices]
    assert len(tight) == 2
    assert {
        name for name in tight[0].slices if not tight[0].slices[name].same(tight[1].slices[name])
    }  # drawn
    assert {reply.partition_id for reply in tight} == {i for i, row in rows.items() if row.budget_bytes}
    up = {row.budget_bytes: row.bytes_up for row in rows.values()}
    assert all(size < 0.8 * up[None] for budget, size in up.items() if budget is not None)
    before = received(listening.sent, place.reference)
    now = checkpoints.load(folder / "checkpoints", 2, run_fingerprint(MIXED)).tensors
    for name, tensor in now.items():
        total, weight = (torch.zeros(tensor.shape, dtype=torch.float64) for _ in range(2))
        for reply in listening.replies:
            if name not in reply.tensors:
                continue
            part, share = reply.slices.get(name), reply.stats["num_examples"]
            at = [slice(None)] * tensor.dim()
            if part is not None:
                at[part.dim] = part.index
            total[tuple(at)] += share * reply.tensors[name].double()
            weight[tuple(at)] += share
        expected = torch.where(weight > 0, total / weight, before[name].double())
        torch.testing.assert_close(tensor.double(), expected, rtol=1e-6, atol=1e-8, msg=name)


def test_every_step_keeps_what_its_plan_says(mixed: tuple[Workplace, Listening, Path]) -> None:
    with RunStore.read(mixed[2]) as store:
        for row in store.device_rounds():
            assert row.measured_bytes == row.planned_bytes
            assert row.budget_bytes is None or row.measured_bytes <= row.budget_bytes


@pytest.mark.slow
@pytest.mark.computes
def test_a_mixed_fleet_resumes_and_runs_on_flower_with_the_same_bits(
    mixed: tuple[Workplace, Listening, Path], tmp_path: Path
) -> None:
    place, _, folder = mixed
    cut = Listening(place, tmp_path / "devices", stop=2)
    with recording(MIXED, tmp_path / "cut", resume=False) as store:
        with pytest.raises(SystemError, match="the power went"):
            conduct(place, store, cut, Unwatched())
        store.set_status("running")
    with recording(MIXED, tmp_path / "cut", resume=True) as store:
        conduct(place, store, Listening(place, tmp_path / "devices"), Unwatched())
    run_in_memory(MIXED, place, tmp_path / "flower", MemoryGrid.of(4, seed=3))
    assert records(folder) == records(tmp_path / "cut") == records(tmp_path / "flower")


@pytest.mark.slow
@pytest.mark.computes
def test_what_a_strategy_holds_of_parts_is_what_the_plan_counts(tmp_path: Path) -> None:
    """Scaffold's variates are of what a device trains alone, though it is sent those of all."""
    tight, roomy = GROUPED
    config = small(
        rounds=2,
        cohort=4,
        method=MIX | {"covers": "training"},
        aggregate={"strategy": "scaffold"},
        compute={"side_by_side": False},
        groups=[tight | {"budget": "40 KiB"}, roomy],
    )
    run_loop(config, tmp_path)
    with RunStore.read(tmp_path) as store:
        rows = list(store.device_rounds())
    assert {row.outcome for row in rows} == {"trained"}
    assert any("channels" in str(row.method) for row in rows)
    for row in rows:
        assert row.planned_bytes == row.measured_bytes + row.accumulator_bytes + row.strategy_bytes
