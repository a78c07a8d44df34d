"""Devices that train some channels only: what they send, what they are sent, and what of a weight never moves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from torch import Tensor

from fed_asi.fleets.config import TrainConfig
from fed_asi.results.store import RunStore
from fed_asi.rounds import checkpoints
from fed_asi.rounds.run import run_loop
from fed_asi.workplace.address import run_fingerprint, workplace_folder
from fed_asi.workplace.prepare import prepare
from runs import small

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


@pytest.mark.parametrize("update", UPDATES)
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
