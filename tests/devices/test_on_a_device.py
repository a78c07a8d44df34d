"""A device's whole work on a device other than the CPU: the same reply, and steps that wait for nothing.

The device is that of second_device.py, whose numbers the CPU computes; what only a GPU can show is in
test_on_a_gpu.py.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from fed_asi.devices.calibration import own_profile, sums_for
from fed_asi.devices.reply import Reply, answer
from fed_asi.fleets import fleet
from fed_asi.fleets.config import RunConfig
from fed_asi.layers import convolution
from fed_asi.memory.arena import planned
from fed_asi.rounds.group_judging import judge_groups
from fed_asi.training.evaluation import evaluate, load_tensors_
from fed_asi.training.steps import Stepper
from fed_asi.workplace.opening import open_workplace
from fed_asi.workplace.place import Workplace
from fed_asi.workplace.prepare import prepare
from runs import job, small
from second_device import SecondDevice, assert_alike, second_device

TIGHT = {"budget_bytes": 24 * 1024, "micro_batch": 4}
METHOD = {"name": "planner", "methods": ("asi", "channels", "quantized"), "layers": 3, "centered": None}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("run")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FED_ASI_FEATURES_DIR", str(folder / "features"))
        prepare(small(method=METHOD), folder / "workplace")
        yield folder / "workplace"


def opened(folder: Path, **changes: Any) -> Workplace:
    """Return the workplace, its settings changed in what needs no other preparation."""
    place = open_workplace(folder)
    config = place.config.model_dump(mode="json")
    for table, keys in changes.items():
        config[table] = {**config[table], **keys}
    return replace(place, config=RunConfig.model_validate(config))


def unattended_(device: SecondDevice, patch: pytest.MonkeyPatch) -> list[int]:
    """Let nobody wait in any step from now on; return a list that grows by one with each."""
    done, plain = list[int](), Stepper.accumulate
    move = Stepper._move

    def accumulate(self: Stepper, x: Tensor, y: Tensor, side_by_side: bool) -> Tensor:
        with device.unattended():
            return plain(self, x, y, side_by_side)

    def moved(self: Stepper, lr: float) -> None:
        done.append(1)
        with device.unattended():
            move(self, lr)

    patch.setattr(Stepper, "accumulate", accumulate)
    patch.setattr(Stepper, "_move", moved)
    return done


def tensors_of(place: Workplace, **changes: Any) -> dict[str, Tensor]:
    """Return what device 2 is sent; of scaffold, a variate beside each weight."""
    found = dict(place.reference)
    if place.config.aggregate.strategy == "scaffold":
        found |= {f"variate..{name}": torch.full_like(t, 1e-3) for name, t in place.reference.items()}
    return found


@pytest.fixture(autouse=True)
def _no_quick_way(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let convolutions of few pixels be computed as on any other device."""
    monkeypatch.setattr(convolution, "FEW_ROWS", 0)


SLOW = (pytest.mark.slow, pytest.mark.computes)
QUICK = {"scaffold"}
CASES: dict[str, dict[str, Any]] = {
    "plain": {},
    "fedprox": {"aggregate": {"strategy": "fedprox", "mu": 1.0}},
    "scaffold": {"aggregate": {"strategy": "scaffold"}},
    "momentum, by layer": {"train": {"momentum": 0.9, "update": "layer"}},
    "int8 upload": {"upload": {"codec": "int8"}},
    "top-k upload": {"upload": {"codec": "top-k"}},
    "channels": {"method": {"methods": ["channels"]}},
    "channels, top-k": {"method": {"methods": ["channels"]}, "upload": {"codec": "top-k"}},
    "stored in int8": {"storage": {"frozen": "int8"}},
    "channels, stored in int8": {"storage": {"frozen": "int8"}, "method": {"methods": ["channels"]}},
    "warm": {"method": {"methods": ["asi(order='published')"]}},
}


@pytest.mark.parametrize("case", [pytest.param(one, marks=() if one in QUICK else SLOW) for one in CASES])
def test_two_rounds_of_a_device_are_the_cpus(case, folder, monkeypatch):
    beside = {} if case in QUICK else {"check": True, "twin": "unlimited"}
    asked = [job(round=1, **TIGHT), job(round=2, factors_round=1, **beside, **TIGHT)]

    def rounds(place: Workplace) -> list[Any]:
        found, state = [], None
        for one in asked:
            reply, state = answer(place, one, tensors_of(place), state)
            assert reply.outcome == "trained", reply.stats
            found.append((replace(reply, host_seconds=None), state))
        return found

    wanted = rounds(opened(folder, **CASES[case]))
    with second_device() as device:
        place = opened(folder, **CASES[case]).on(device.place)
        answer(place, asked[0], tensors_of(place), None)  # what is kept there is made by a first one
        done = unattended_(device, monkeypatch)
        found = rounds(place)
        assert done or "by layer" in case
    for (ours, kept), (theirs, held) in zip(found, wanted, strict=True):
        same(ours, theirs)
        assert_alike(kept, held)


def same(found: Reply, wanted: Reply) -> None:
    """Hold a reply against another: what it says, and every tensor."""
    assert_alike(json.loads(found.to_json()), json.loads(wanted.to_json()))
    assert_alike(found.tensors, wanted.tensors)


def test_features_that_do_not_fit_wait_on_the_cpu_and_are_sent_batch_by_batch(folder, monkeypatch):
    wanted, _ = answer(opened(folder), job(**TIGHT), opened(folder).reference, None)
    monkeypatch.setattr("fed_asi.workplace.place.room_bytes", lambda _config, _device: 0)
    with second_device() as device:
        place = opened(folder).on(device.place)
        assert place.features is not None
        assert (place.features.device.type, place.labels.device.type) == ("cpu", "cpu")
        answer(place, job(**TIGHT), place.reference, None)
        assert unattended_(device, monkeypatch) == []
        found, _ = answer(place, job(**TIGHT), place.reference, None)
    same(found, wanted)


def test_without_stored_features_the_trunk_computes_there(tmp_path, monkeypatch):
    monkeypatch.setenv("FED_ASI_FEATURES_DIR", str(tmp_path / "features"))
    here = prepare(small(compute={"features": "off"}), tmp_path / "workplace")
    wanted, _ = answer(here, job(**TIGHT), here.reference, None)
    with second_device() as device:
        place = open_workplace(tmp_path / "workplace").on(device.place)
        found, _ = answer(place, job(**TIGHT), place.reference, None)
    same(found, wanted)


@pytest.mark.slow
@pytest.mark.computes
@pytest.mark.parametrize("update", ["step", "layer"])
def test_a_whole_device_is_counted_there(folder, update, monkeypatch):
    """Its layers train some channels, whose indices go along to where the step is traced."""
    monkeypatch.setattr(planned, "_PLANNED", {})
    whole = {"budget_bytes": None, "ram_bytes": 40 << 10, "flash_bytes": 1 << 22}
    settings = {"train": {"update": update, "clip_norm": "off"}}
    wanted, _ = answer(opened(folder, **settings), job(**whole), opened(folder).reference, None)
    assert wanted.stats["outcome"] == "trained", wanted.stats["cause"]
    assert 0 < wanted.stats["ram_bytes"] <= 40 << 10
    assert "channels" in wanted.stats["method"]
    planned._PLANNED.clear()
    with second_device() as device:
        place = opened(folder, **settings).on(device.place)
        found, _ = answer(place, job(**whole), place.reference, None)
    same(found, wanted)


@pytest.mark.slow
@pytest.mark.computes
def test_what_a_run_decides_is_found_on_the_cpu_whatever_it_trains_on(folder):
    here = opened(folder)
    wanted = own_profile(here, 2), sums_for(here, 2, "spectra", {})
    with second_device() as device:
        place = opened(folder).on(device.place)
        found = own_profile(place, 2), sums_for(place, 2, "spectra", {})
    assert_alike(json.loads(found[0].to_json()), json.loads(wanted[0].to_json()))
    assert_alike(found[1], wanted[1])


def test_the_server_judges_there(folder):
    here = opened(folder)
    load_tensors_(here.tail, here.reference)
    devices = fleet.build(here.config)
    wanted = judge_groups(here, devices, 0), evaluate(here.tail, here.test_features, here.test_labels, 10)
    with second_device() as device:
        place = opened(folder).on(device.place)
        load_tensors_(place.tail, place.reference)
        found = (
            judge_groups(place, devices, 0),
            evaluate(place.tail, place.test_features, place.test_labels, 10),
        )
    assert_alike(
        [asdict(one) for one in (*found[0], found[1])], [asdict(one) for one in (*wanted[0], wanted[1])]
    )
