"""A device's warm factors: from its Flower state, else from disk, else one line about what is broken."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict

from fed_asi.devices.warm_factors import OnDisk
from fed_asi.errors import RunError
from fed_asi.flower.device_state import DeviceState
from runs import job

FACTORS = {"conv": [torch.randn(4, 2), torch.zeros(0), torch.randn(3, 1)]}


def same(found: object) -> bool:
    return isinstance(found, dict) and all(
        torch.equal(a, b) for a, b in zip(found["conv"], FACTORS["conv"], strict=True)
    )


def test_factors_are_those_of_the_round_the_job_names(tmp_path: Path) -> None:
    flower = RecordDict()
    state = DeviceState(flower, OnDisk(tmp_path))
    assert state.factors(job()) is None
    state.keep(job(round=4), FACTORS)
    assert same(DeviceState(flower, None).factors(job(factors_round=4)))  # with no disk
    assert same(DeviceState(RecordDict(), OnDisk(tmp_path)).factors(job(factors_round=4)))  # after a kill
    for disk in (OnDisk(tmp_path), None):
        with pytest.raises(RunError, match=r"no file|none of round 3"):
            DeviceState(flower, disk).factors(job(factors_round=3))
    assert DeviceState(flower, None).factors(job(factors_round=0)) is None


def test_factors_come_back_in_the_layout_they_had_as_it_decides_the_last_bits(tmp_path: Path) -> None:
    factors = {
        "conv": [torch.randn(2, 48).t(), torch.randn(48, 2), torch.randn(1, 48).t(), torch.empty(0, 0)]
    }
    flower = RecordDict()
    DeviceState(flower, OnDisk(tmp_path)).keep(job(round=4), factors)
    for state in (DeviceState(flower, None), DeviceState(RecordDict(), OnDisk(tmp_path))):
        found = state.factors(job(factors_round=4))
        assert found is not None
        for back, part in zip(found["conv"], factors["conv"], strict=True):
            assert torch.equal(back, part)
            assert (back.stride(), back.data_ptr() % 64) == (part.stride(), 0)


def test_the_disk_has_what_the_state_has_no_more(tmp_path: Path) -> None:
    state = DeviceState(RecordDict(), OnDisk(tmp_path))
    state.keep(job(round=4), FACTORS)
    state.keep(job(round=6, factors_round=4), {"conv": [torch.ones(4, 2)]})
    assert same(state.factors(job(round=6, factors_round=4)))


@pytest.mark.parametrize(
    "flower",
    [
        RecordDict({"factors-round": ConfigRecord({"other": 4})}),
        RecordDict({"factors-round": ArrayRecord()}),
        RecordDict({"factors-round": ConfigRecord({"round": 4})}),
        RecordDict(
            {
                "factors-round": ConfigRecord({"round": 4}),
                "factors": ArrayRecord({"conv|0": Array("float32", (1,), "numpy.ndarray", b"no array")}),
            }
        ),
        RecordDict(
            {
                "factors-round": ConfigRecord({"round": 4}),
                "factors": ArrayRecord({"conv|0": Array("float32", (1,), "pickle", b"")}),
            }
        ),
    ],
    ids=["no round", "no numbers", "no arrays", "noise", "pickle"],
)
def test_a_broken_state_is_one_line_and_the_disk_stands_in(flower: RecordDict, tmp_path: Path) -> None:
    OnDisk(tmp_path).keep(job(round=4), FACTORS)
    with pytest.raises(RunError, match=r"^its Flower state holds no warm factors: .+$"):
        DeviceState(flower, None).factors(job(factors_round=4))
    assert same(DeviceState(flower, OnDisk(tmp_path)).factors(job(factors_round=4)))
