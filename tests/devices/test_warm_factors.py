"""A device's warm factors on disk: those of the round it starts from, or one line that says why there are none."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
import torch

from fed_asi.devices.warm_factors import OnDisk, load_factors, save_factors
from fed_asi.errors import RunError
from fed_asi.files import pack, write_file
from runs import job


def test_factors_keep_the_round_they_started_from(tmp_path: Path) -> None:
    for round, base in ((2, 0), (5, 2), (9, 5)):
        save_factors(tmp_path, 3, round, base, {"conv": [torch.full((4, 2), float(round))]})
    kept = sorted(p.name for p in (tmp_path / "000003").iterdir())
    assert kept == ["round-000002.pt", "round-000005.pt", "round-000009.pt"]
    save_factors(tmp_path, 3, 12, 9, {"conv": [torch.ones(1, 1)]})
    kept = sorted(p.name for p in (tmp_path / "000003").iterdir())
    assert kept == ["round-000005.pt", "round-000009.pt", "round-000012.pt"]
    # Round 9 was cut off and is done again: it must start from round 5, not from its own first try.
    again = load_factors(tmp_path, 3, 5)
    assert again is not None
    assert torch.equal(again["conv"][0], torch.full((4, 2), 5.0))


def test_no_factors_is_none(tmp_path: Path) -> None:
    assert load_factors(tmp_path, 3, 0) is None
    with pytest.raises(RunError, match=r"no file .*000003.round-000004\.pt"):
        load_factors(tmp_path, 3, 4)  # there must have been some


def test_a_job_names_its_device_and_rounds(tmp_path: Path) -> None:
    state = OnDisk(tmp_path)
    state.keep(job(round=4), {"conv": [torch.ones(2, 1)]})
    state.keep(job(round=5), {})  # a method without factors leaves nothing
    found = state.factors(job(round=5, factors_round=4))
    assert found is not None
    assert torch.equal(found["conv"][0], torch.ones(2, 1))
    for gone in (job(round=6, factors_round=5), job(round=5, partition_id=1, factors_round=4)):
        with pytest.raises(RunError, match="no file"):
            state.factors(gone)


@pytest.mark.parametrize(
    "content",
    [{}, {"factors": 7}, {"factors": {"conv": 7}}, {"factors": {"conv": [None]}}, {"factors": {1: []}}],
)
def test_a_file_of_something_else_is_named(content: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "000003" / "round-000004.pt"
    write_file(path, pack(content))
    with pytest.raises(RunError, match=r"round-000004.pt holds no warm factors"):
        load_factors(tmp_path, 3, 4)


def test_any_corrupt_file_is_one_line(tmp_path: Path) -> None:
    save_factors(tmp_path, 3, 4, 0, {"conv": [torch.randn(8, 3)]})
    path = tmp_path / "000003" / "round-000004.pt"
    good, rng = path.read_bytes(), random.Random(0)
    for _ in range(200):
        bad = bytearray(good[: rng.randrange(len(good))] if rng.random() < 0.3 else good)
        for _ in range(rng.randrange(1, 9)):
            if bad:
                bad[rng.randrange(len(bad))] = rng.randrange(256)
        path.write_bytes(bad)
        why = ""
        try:
            load_factors(tmp_path, 3, 4)  # a changed number may go unseen
        except RunError as error:
            why = str(error)
        assert "\n" not in why


def test_a_folder_in_the_place_of_a_file_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "000003" / "round-000004.pt").mkdir(parents=True)
    with pytest.raises(RunError, match="is corrupt"):
        load_factors(tmp_path, 3, 4)
    (tmp_path / "000005").write_text("a file, not a folder")
    with pytest.raises(RunError, match="cannot write"):
        save_factors(tmp_path, 5, 4, 0, {"conv": [torch.ones(1, 1)]})
