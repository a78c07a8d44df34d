"""Data sets: checked arrays, fingerprints of their whole content, splits, and halves."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fed_asi import data
from fed_asi.errors import ConfigError, MissingDataError
from pictures import imagenet, pixels


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"x_train": pixels(6).astype(np.float32)}, "x_train is float32"),
        ({"x_train": pixels(6)[..., 0]}, r"x_train is uint8 \(6, 32, 32\)"),
        ({"y_test": [0]}, "y_test"),
        ({"y_train": [0, -1] * 3}, "labels outside"),
        ({"x_test": None}, "x_test"),
    ],
)
def test_arrays_of_another_shape_are_named(tmp_path: Path, change: dict, words: str) -> None:
    arrays = {"x_train": pixels(6), "y_train": [0, 1] * 3, "x_test": pixels(2), "y_test": [0, 1]} | change
    np.savez(tmp_path / "mine.npz", **{key: value for key, value in arrays.items() if value is not None})
    with pytest.raises(MissingDataError, match=words):
        data.load("mine", tmp_path)


def test_the_fingerprint_follows_pixels_and_labels() -> None:
    def made(x: np.ndarray, y: list[int]) -> str:
        arrays = (x, np.array(y))
        return data.from_arrays("own", arrays, arrays, ("a", "b")).fingerprint

    assert made(pixels(2), [0, 1]) == made(pixels(2), [0, 1])
    assert len({made(pixels(2), [0, 1]), made(pixels(2, 1), [0, 1]), made(pixels(2), [1, 0])}) == 3


def test_a_split_that_leaves_nothing_is_an_error() -> None:
    with pytest.raises(ConfigError, match="leave nothing of 1437"):
        data.load("digits").split(public=437, validation=1000, seed=0)


def test_halves_share_no_class_and_lose_no_image(tmp_path: Path) -> None:
    whole = data.load("imagenet", imagenet(tmp_path), size=4)
    first, second = data.halves(whole, seed=1)
    assert not set(first.y_train) & set(second.y_train)
    assert set(first.y_train) == set(first.y_test)
    assert len(first.y_train) + len(second.y_train) == len(whole.y_train)
    assert len({whole.fingerprint, first.fingerprint, second.fingerprint}) == 3
    assert [int(x[0, 0, 0]) // 10 for x in first.x_train[:]] == list(first.y_train)
    assert first.num_classes == 4


def test_a_split_uses_every_row_once_and_follows_its_seed() -> None:
    digits = data.load("digits")
    split, again, other = (digits.split(public=100, validation=50, seed=seed) for seed in (0, 0, 1))
    assert np.array_equal(split.validation, np.arange(1387, 1437))
    rows = np.concatenate([split.public, split.train, split.validation])
    assert np.array_equal(np.sort(rows), np.arange(1437))
    assert np.array_equal(split.public, again.public)
    assert not np.array_equal(split.public, other.public)


def test_one_class_cannot_be_halved() -> None:
    one = data.from_arrays("one", (pixels(2), np.zeros(2, int)), (pixels(1), np.zeros(1, int)), ("a",))
    with pytest.raises(ConfigError, match="one has 1 class, which cannot be halved"):
        data.halves(one)
