"""Where the network is cut: before the first layer that a plan of the fleet really trains, no earlier."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from fed_asi.devices.job import Job
from fed_asi.devices.work import train_locally
from fed_asi.files import read_tensors
from fed_asi.fleets.resources import Resources
from fed_asi.workplace.opening import open_workplace
from fed_asi.workplace.place import Workplace
from fed_asi.workplace.prepare import prepare
from runs import small

ANY = {"name": "planner", "layers": "any", "methods": ["bias", "vanilla"], "centered": None}


def place_for(folder: Path, budget: str) -> Workplace:
    group = {"name": "all", "count": 6, "budget": budget, "batch_size": 16, "micro_batch": 4}
    return prepare(small(method=ANY, groups=[group]), folder / "workplace")


@pytest.fixture(autouse=True)
def _features(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FED_ASI_FEATURES_DIR", str(tmp_path / "features"))


def test_the_cut_follows_the_plans_really_made(tmp_path: Path) -> None:
    tight, roomy = place_for(tmp_path / "tight", "3 KiB"), place_for(tmp_path / "roomy", "unlimited")
    assert len(tight.reference) < len(roomy.reference)
    assert tight.test_features[0].nbytes < roomy.test_features[0].nbytes
    assert "first_conv.conv.weight" in roomy.reference
    result = train_locally(tight, Job(1, 2, Resources(3 * 1024, 16, 4), 0.05), tight.reference)
    assert result.stats["outcome"] == "trained"
    assert set(result.tensors) <= set(tight.reference)
    again = open_workplace(tight.folder)
    assert again.reference.keys() == tight.reference.keys()
    assert again.test_features.shape == tight.test_features.shape


def test_the_server_trains_the_head_alone_where_asked(tmp_path: Path) -> None:
    asked = {"model": {"weights": "none"}, "compute": {"features": "off"}}
    plain = prepare(small(**asked), tmp_path / "plain")
    made = prepare(small(pretrain={"head_epochs": 2}, **asked), tmp_path / "head")
    before, after = (read_tensors(place.folder / "base.pt") for place in (plain, made))
    assert {name for name in after if not torch.equal(before[name], after[name])} == {
        "classifier.weight",
        "classifier.bias",
    }
    public = made.config.data.public
    assert made.notes[0].startswith(
        f"weights of the head: trained by the server on {public} public images, which are on no device (2 epochs, loss "
    )
    assert not any("trained by the server" in note for note in plain.notes)
