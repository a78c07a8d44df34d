"""Data sets by name: real digits, an .npz, your own, and one line if there is nothing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fed_asi import data
from fed_asi.data import sources
from fed_asi.errors import ConfigError, MissingDataError
from pictures import pixels


def test_digits_are_all_there_and_always_the_same() -> None:
    digits, again = data.load("digits"), sources._digits(None, sources.SIZE)  # read anew
    assert digits.x_train[:].shape == (1437, 32, 32, 3)
    assert digits.x_test[:].shape == (360, 32, 32, 3)
    assert digits.num_classes == 10
    assert digits.fingerprint == again.fingerprint
    assert set(np.unique(digits.y_test)) == set(range(10))


@pytest.mark.slow
@pytest.mark.computes
def test_cifar10_from_an_npz(cifar10_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FED_ASI_DATA_DIR", str(cifar10_dir))
    cifar = data.load("cifar10")
    images = cifar.x_train[:]
    assert images.shape == (50_000, 32, 32, 3)
    sums = images.reshape(-1, 32 * 32, 3).sum(1, dtype=np.uint32).sum(0, dtype=np.uint64)
    assert sums / (images.size / 3 * 255) == pytest.approx([0.49140, 0.48216, 0.44653], abs=1e-5)
    assert cifar.class_names[0] == "airplane"
    split = cifar.split(public=300, validation=10_000, seed=0)
    assert np.array_equal(split.validation, np.arange(40_000, 50_000))
    assert np.array_equal(np.sort(np.concatenate([split.public, split.train])), np.arange(40_000))


def test_any_npz_in_the_folder_is_a_data_set_of_its_name(tmp_path: Path) -> None:
    np.savez(tmp_path / "mine.npz", x_train=pixels(6), y_train=[0, 1] * 3, x_test=pixels(2), y_test=[0, 2])
    mine = data.load("mine", tmp_path)
    assert (mine.name, mine.num_classes, len(mine.x_train)) == ("mine", 3, 6)


def test_a_file_that_is_no_npz_is_named(tmp_path: Path) -> None:
    (tmp_path / "mine.npz").write_bytes(b"not a zip")
    with pytest.raises(MissingDataError, match=r"mine\.npz is not a data set"):
        data.load("mine", tmp_path)


def test_an_unknown_name_gets_the_nearest_ones() -> None:
    with pytest.raises(ConfigError, match=r"unknown data set 'cifar_10'; did you mean cifar10"):
        data.load("cifar_10")


def test_a_data_set_of_ones_own_is_loaded_by_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, own_names: None
) -> None:
    asked: list[tuple[Path | None, int]] = []

    def mine(folder: Path | None, size: int) -> data.Dataset:
        asked.append((folder, size))
        return data.from_arrays("mine", (pixels(4), np.arange(4) % 2), (pixels(2), np.arange(2)), ("a", "b"))

    data.register("mine", mine)
    assert "mine" in data.names()
    assert data.load("mine").class_names == ("a", "b")
    monkeypatch.setenv("FED_ASI_DATA_DIR", str(tmp_path))
    data.load("mine", size=64)
    assert asked == [(None, 224), (tmp_path, 64)]
    with pytest.raises(ConfigError, match="unknown data set 'min'; did you mean mine"):
        data.load("min")
    np.savez(tmp_path / "mine.npz", x_train=pixels(6), y_train=[0, 1] * 3, x_test=pixels(2), y_test=[0, 1])
    assert len(data.load("mine").x_train) == 6  # a file of the name comes first
    assert len(asked) == 2


def test_a_path_is_a_data_set_of_its_files_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    np.savez(tmp_path / "mine.npz", x_train=pixels(6), y_train=[0, 1] * 3, x_test=pixels(2), y_test=[0, 2])
    monkeypatch.chdir(tmp_path)
    for name in ("mine.npz", "./mine.npz", str(tmp_path / "mine.npz")):
        assert data.load(name).name == "mine"
    with pytest.raises(MissingDataError, match=r"no file 'yours\.npz'"):
        data.load("yours.npz")
    with pytest.raises(MissingDataError, match="no file"):
        data.load("\0.npz")
    with pytest.raises(ConfigError, match="unknown data set"):
        data.load("x" * 5000, tmp_path)


def test_digits_are_scikit_learns_whether_its_file_is_read_or_asked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from sklearn.datasets import load_digits

    read = sources._digits_of_sklearn()
    monkeypatch.setattr(sources, "is_file", lambda _path: False)
    asked = sources._digits_of_sklearn()
    for found in (read, asked):
        np.testing.assert_array_equal(found[0], load_digits().images)
        np.testing.assert_array_equal(found[1], load_digits().target)
        assert (found[0].dtype, found[1].dtype) == (np.float64, np.int64)
