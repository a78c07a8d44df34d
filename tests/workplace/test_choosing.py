"""A run whose plans choose the format in which devices store what they only read."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from fed_asi import data
from fed_asi.devices.work import train_locally
from fed_asi.errors import ConfigError
from fed_asi.fleets.config import RunConfig
from fed_asi.fleets.resources import Resources
from fed_asi.workplace.ahead import look_ahead
from fed_asi.workplace.choosing import with_storage
from fed_asi.workplace.opening import open_workplace
from fed_asi.workplace.prepare import prepare
from fed_asi.workplace.splits import split_images
from fed_asi.workplace.storing import storage_notes
from runs import job, small

BOARD = {"name": "board", "count": 6, "budget": "unlimited", "batch_size": 16, "micro_batch": 1}


def fleet(**limits: Any) -> RunConfig:
    return small(
        storage={"frozen": "any", "calibration_images": 8},
        method={"calibration_images": 8},
        train={"update": "layer"},
        groups=[{**BOARD, **limits}],
    )


@pytest.mark.slow  # three formats are planned, twice
@pytest.mark.computes
def test_it_is_the_finest_in_which_the_devices_have_a_plan(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FED_ASI_FEATURES_DIR", str(tmp_path / "features"))
    roomy = prepare(fleet(flash="1 MiB"), tmp_path / "roomy")
    assert roomy.config.storage.form == "float32"
    assert roomy.notes == (
        "storage: frozen weights are stored as float32, in which most devices have a plan, and plans capture most",
    )
    board = Resources(None, 16, 1, flash_bytes=2**20)
    flash = roomy.plans.whole(board).memory.flash_bytes // 2  # float16 keeps statistics whole
    place = prepare(fleet(flash=f"{flash} B"), tmp_path / "tight")
    assert place.config.storage.form == "int8"
    assert "stored as int8, ranges of activations from 8 public images, in which" in place.notes[0]
    again = open_workplace(tmp_path / "tight")
    assert again.config.storage.form == "int8"
    result = train_locally(again, job(replace(board, flash_bytes=flash)), again.reference)
    assert result.stats["outcome"] == "trained"
    assert result.stats["flash_bytes"] <= flash
    (ahead,) = look_ahead(fleet(flash=f"{flash} B"))
    assert ahead.attempt is not None
    assert ahead.attempt.plan.storage == "int8"


def test_without_ram_or_flash_it_is_float32() -> None:
    config = small(storage={"frozen": "any"})
    model, nothing = nn.Identity(), (torch.zeros(0), torch.zeros(0))  # nothing of either is looked at
    own = with_storage(config, model, nothing)  # type: ignore[arg-type]
    assert own.storage.form == "float32"
    said = ["storage: frozen weights are stored as float32, as no device says its RAM or flash"]
    assert storage_notes(own, 64, chosen=True) == said
    named = small(storage={"frozen": "int8"})
    assert with_storage(named, model, nothing) is named  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="is resolved when a run is prepared"):
        _ = config.storage.form


def test_a_format_that_the_trunk_has_only_before_the_cut_moves_is_not_chosen() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(
            nn.Conv2d(3, 4, 3, stride=2),
            nn.Conv2d(4, 4, 3),
            nn.PReLU(),  # which has no form in 8 bits
            nn.Conv2d(4, 8, 3, stride=2),
            nn.Conv2d(8, 64, 3),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(64, 10),
        )
    config = small(
        storage={"frozen": "any"},
        method={"name": "planner", "layers": ["1", "7"], "calibration_images": 8},
        groups=[{**BOARD, "budget": "600 B", "flash": "9000 B"}],
    )
    public = split_images(config, data.load("digits")).public
    assert with_storage(config, model.eval(), public).storage.form == "float16"
