"""A run whose devices store frozen weights in another format: features, weights, and what is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from fed_asi import data
from fed_asi.compression import cut
from fed_asi.errors import ConfigError
from fed_asi.files import read_tensors
from fed_asi.fleets.config import RunConfig
from fed_asi.storage.trunk import stored_trunk
from fed_asi.workplace.address import run_fingerprint
from fed_asi.workplace.opening import open_workplace, rebuild
from fed_asi.workplace.place import Workplace
from fed_asi.workplace.prepare import prepare
from fed_asi.workplace.profiling import batch_of
from fed_asi.workplace.splits import split_images
from fed_asi.workplace.start import check_network
from runs import small

FORMATS = ("float32", "float16", "int8")
TRAINED = "blocks.2.inverted_bottleneck.conv"  # so that the tail has frozen convolutions behind it
BEHIND = ("blocks.2.depth_conv.conv.weight", "blocks.2.point_linear.conv.weight")


def config_of(form: str, **changes: Any) -> RunConfig:
    method = {"layers": [TRAINED], "calibration_images": 8}
    return small(storage={"frozen": form, "calibration_images": 16}, method=method, **changes)


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Workplace]:
    folder = tmp_path_factory.mktemp("stored")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FED_ASI_FEATURES_DIR", str(folder / "features"))
        return {form: prepare(config_of(form), folder / form) for form in FORMATS}


def manifest(place: Workplace) -> dict[str, Any]:
    return dict(json.loads((place.folder / "manifest.json").read_text()))


def test_features_are_the_stored_trunks_under_an_address_of_their_own(places: dict[str, Workplace]) -> None:
    rows = split_images(places["int8"].config, data.load("digits")).train[0][:5]
    for form, place in places.items():
        trunk, _ = rebuild(place.config, manifest(place), read_tensors(place.folder / "base.pt"))
        batch, quick = batch_of(place.config, rows), cut.folded(trunk)
        expected, plain = stored_trunk(quick, form, manifest(place)["ranges"])(batch), quick(batch)  # type: ignore[arg-type]
        assert place.features is not None
        wrong = (place.features[:5] - expected).norm()
        assert wrong == 0 if form == "int8" else wrong < 1e-5 * expected.norm()
        assert torch.equal(expected, plain) is (form == "float32")
        assert (expected - plain).norm() < 0.1 * plain.norm()
        assert (len(place.features.unique()) <= 256) is (form == "int8")
    assert len({manifest(place)["features"] for place in places.values()}) == 3


def test_the_tail_is_handed_out_as_it_is_stored(places: dict[str, Workplace]) -> None:
    before = {name: value.numpy() for name, value in places["float32"].tail.state_dict().items()}
    for form in ("float16", "int8"):
        place = places[form]
        after = {name: value.numpy() for name, value in place.tail.state_dict().items()}
        changed = {name for name in before if not np.array_equal(before[name], after[name])}
        trained = f"{TRAINED}.weight"
        assert {*BEHIND, trained, "classifier.weight"} <= changed
        assert np.array_equal(place.reference[trained].numpy(), after[trained])
        if form == "int8":
            assert changed == {*BEHIND, trained, "classifier.weight"}
            rows = after[BEHIND[1]].reshape(16, -1)
            steps = rows / np.abs(rows).max(1, keepdims=True) * 127
            assert np.abs(steps - np.rint(steps)).max() < 1e-3


def test_features_that_are_gone_are_made_again_to_the_bit(places: dict[str, Workplace]) -> None:
    for form in ("float16", "int8"):
        place = places[form]
        assert place.features is not None
        kept = place.features.clone()
        entry = place.folder.parent / "features" / manifest(place)["features"]
        shutil.rmtree(entry)
        again = open_workplace(place.folder)
        assert again.features is not None
        assert torch.equal(again.features, kept)
        assert entry.is_dir()


def test_without_kept_features_a_device_runs_the_stored_trunk(
    places: dict[str, Workplace], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = places["int8"]
    monkeypatch.setenv("FED_ASI_FEATURES_DIR", str(place.folder.parent / "features"))
    off = config_of("int8", compute={"features": "off"})
    rows = torch.tensor([3, 7, 11])
    assert torch.equal(prepare(off, tmp_path / "off").inputs(rows), place.inputs(rows))


def test_where_the_planner_moves_the_cut_the_trunk_is_stored_as_it_was_at_first(
    places: dict[str, Workplace], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FED_ASI_FEATURES_DIR", str(tmp_path / "features"))
    groups = [{"name": "tight", "count": 6, "budget": "1200 B", "batch_size": 16, "micro_batch": 1}]
    last = "blocks.2.point_linear.conv"
    method = {"name": "planner", "layers": ["first_conv.conv", last], "calibration_images": 8}
    made = prepare(small(storage={"frozen": "int8"}, method=method, groups=groups), tmp_path / "int8")
    assert manifest(made)["trained"] == [last, "classifier"]
    before = read_tensors(places["float32"].folder / "base.pt")  # the same network by the same seed
    base = read_tensors(made.folder / "base.pt")
    trunk, _ = rebuild(made.config, manifest(made), base)
    kept = [name for name, _ in trunk.named_parameters()]
    # Behind the first cut and frozen, so it was stored there.
    assert "blocks.0.depth_conv.conv.weight" in kept
    assert all(torch.equal(base[name], before[name]) for name in kept)
    assert made.notes == (
        "storage: frozen weights are stored as int8, ranges of activations from 64 public images",
    )
    assert places["float32"].notes == ()


def test_a_trunk_that_has_no_form_is_named_before_the_start() -> None:
    model = with_prelu()
    config = small(storage={"frozen": "int8"}, method={"layers": ["2"]})
    with pytest.raises(ConfigError) as raised:
        check_network(config, model, 10)
    assert raised.value.problems == [
        'storage.frozen: "int8": 1: PReLU has no form in 8 bits; use "float16" or "float32", or train that layer'
    ]
    half = small(storage={"frozen": "float16"}, method={"layers": ["2"]})
    check_network(half, model, 10)
    with torch.no_grad():
        model[0].weight.fill_(1e6)
    with pytest.raises(ConfigError, match=r"^storage\.frozen: 0\.weight cannot be stored as float16"):
        check_network(half, model, 10)


def with_prelu() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, stride=2),
        nn.PReLU(),
        nn.Conv2d(4, 4, 3),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(4, 10),
    )


def test_runs_of_before_stay_the_same_runs() -> None:
    plain = run_fingerprint(small())
    assert run_fingerprint(small(storage={"frozen": "float32", "calibration_images": 5})) == plain
    others = {run_fingerprint(small(storage={"frozen": "int8", "calibration_images": n})) for n in (5, 6)}
    assert len(others | {plain, run_fingerprint(small(storage={"frozen": "float16"}))}) == 4
