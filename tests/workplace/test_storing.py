"""A run whose devices store what is frozen in another format: its features, its weights, and what is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from fed_asi.compression import cut
from fed_asi.errors import ConfigError
from fed_asi.files import read_tensors
from fed_asi.fleets.config import RunConfig
from fed_asi.storage.trunk import stored_trunk
from fed_asi.workplace.address import run_fingerprint
from fed_asi.workplace.place import Workplace, open_workplace, rebuild
from fed_asi.workplace.prepare import prepare
from fed_asi.workplace.profiling import batch_of, trained_names
from fed_asi.workplace.storing import check_storage
from runs import small

MADE = ("float32", "float16", "int8")


def config_of(form: str, **changes: object) -> RunConfig:
    # The biases and the weight of one layer of three: frozen weights are in the tail too.
    method = {"layers": ["layers.2"], "calibration_images": 8}
    return small(storage={"frozen": form, "calibration_images": 16}, method=method, **changes)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("stored")


@pytest.fixture(scope="module")
def places(folder: Path) -> dict[str, Workplace]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FED_ASI_FEATURES_DIR", str(folder / "features"))
        return {form: prepare(config_of(form), folder / form) for form in MADE}


def manifest(place: Workplace) -> dict[str, object]:
    return dict(json.loads((place.folder / "manifest.json").read_text()))


def test_features_are_those_of_the_stored_trunk_under_an_address_of_their_own(
    places: dict[str, Workplace],
) -> None:
    assert len({manifest(place)["features"] for place in places.values()}) == 3
    from fed_asi import data
    from fed_asi.workplace.splits import split_images

    rows = split_images(places["int8"].config, data.load("digits")).train[0][:5]
    for form, place in places.items():
        trunk, _ = rebuild(place.config, manifest(place), read_tensors(place.folder / "base.pt"))
        stored = stored_trunk(cut.folded(trunk), form, manifest(place)["ranges"])  # type: ignore[arg-type]
        expected = stored(batch_of(place.config, rows))
        assert place.features is not None
        assert torch.allclose(place.features[:5], expected, rtol=0, atol=0 if form == "int8" else 1e-2)
        plain = cut.folded(trunk)(batch_of(place.config, rows))
        assert torch.equal(expected, plain) is (form == "float32")


def test_int8_features_take_no_more_than_256_values(places: dict[str, Workplace]) -> None:
    for form, most in (("int8", 256), ("float32", 10**9)):
        place = places[form]
        assert place.features is not None
        values = len(place.features.unique())
        assert (values <= most) is True
        assert (values <= 256) is (form == "int8")
        assert len(place.test_features.unique()) <= most
