"""A workplace opened again, by the server or a worker: complete, completed, or refused in one line."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from fed_asi import data
from fed_asi.errors import FedAsiError, MissingDataError, RunError
from fed_asi.workplace.opening import open_workplace
from fed_asi.workplace.place import Workplace
from fed_asi.workplace.prepare import prepare
from runs import small

CONFIG = small(data={"source": "own"}, method={"calibration_images": 8})


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """A folder with a data set of one's own."""
    digits = data.load("digits")
    folder = tmp_path / "data"
    folder.mkdir()
    arrays = {"x_train": digits.x_train[:400], "y_train": digits.y_train[:400]}
    np.savez(folder / "own.npz", **arrays, x_test=digits.x_test[:64], y_test=digits.y_test[:64])
    return folder


@pytest.fixture
def place(
    images: Path, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> Workplace:
    monkeypatch.setenv("FED_ASI_FEATURES_DIR", str(tmp_path / "features"))
    monkeypatch.setenv("FED_ASI_PROFILES_DIR", str(tmp_path_factory.getbasetemp() / "profiles"))
    return prepare(CONFIG, tmp_path / "workplace", data_dir=images)


@pytest.mark.few(1)
@pytest.mark.parametrize("harm", ["all", "an entry", "a byte"])
def test_features_that_are_gone_are_made_again_to_the_bit_by_whoever_opens_it(
    place: Workplace, tmp_path: Path, harm: str
) -> None:
    assert place.features is not None
    features, tests = place.features.clone(), place.test_features.clone()
    first, *_ = sorted((tmp_path / "features").glob("*/features.npy"))
    if harm == "a byte":
        first.write_bytes(first.read_bytes()[:-1])
    else:
        shutil.rmtree(tmp_path / "features" if harm == "all" else first.parent)
    again = open_workplace(place.folder)  # as a worker does, which knows of no data folder
    assert again.features is not None
    assert torch.equal(again.features, features)
    assert torch.equal(again.test_features, tests)


def test_without_the_images_that_is_one_line(place: Workplace, images: Path, tmp_path: Path) -> None:
    shutil.rmtree(tmp_path / "features")
    moved = images.rename(tmp_path / "moved")
    with pytest.raises(MissingDataError) as raised:
        open_workplace(place.folder)
    assert str(raised.value).startswith(
        f"the run's features are gone from {tmp_path / 'features'}, and the images"
    )
    assert "\n" not in str(raised.value)
    assert open_workplace(place.folder, data_dir=moved).features is not None


def test_other_images_are_not_taken_for_them(place: Workplace, images: Path, tmp_path: Path) -> None:
    shutil.rmtree(tmp_path / "features")
    with np.load(images / "own.npz") as arrays:
        changed = dict(arrays)
    changed["x_train"] = 255 - changed["x_train"]
    np.savez(images / "own.npz", **changed)
    with pytest.raises(RunError, match=r"train images are gone .* not those that the run began with"):
        open_workplace(place.folder)


@pytest.mark.few(3)
@pytest.mark.parametrize("name", ["base.pt", "index.npz", "profile.json"])
@pytest.mark.parametrize("harm", ["gone", "cut", "empty"])
def test_a_damaged_workplace_is_one_line_and_can_be_made_again(
    place: Workplace, images: Path, name: str, harm: str
) -> None:
    path = place.folder / name
    content = path.read_bytes()
    path.unlink()
    if harm != "gone":
        path.write_bytes(content[: len(content) // 2] if harm == "cut" else b"")
    with pytest.raises(FedAsiError) as raised:
        prepare(CONFIG, place.folder, data_dir=images)
    assert f"{place.folder} cannot be used (" in str(raised.value)
    assert str(raised.value).endswith("remove it, and it is made again on --resume")
    assert "\n" not in str(raised.value)


def test_without_stored_features_the_images_of_the_run_are_enough(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FED_ASI_FEATURES_DIR", str(tmp_path / "features"))
    config = small(data={"source": "own"}, compute={"features": "off"}, method={"calibration_images": 8})
    place = prepare(config, tmp_path / "workplace", data_dir=images)
    shutil.rmtree(tmp_path / "features")
    again = open_workplace(place.folder)
    assert again.features is None
    assert torch.equal(again.test_features, place.test_features)
    rows = torch.arange(3)
    assert torch.equal(again.inputs(rows), place.inputs(rows))
