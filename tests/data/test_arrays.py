"""Arrays are checked once, before use: every problem is named, and nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fed_asi import data
from fed_asi.data.arrays import check_arrays, class_names
from fed_asi.errors import MissingDataError
from pictures import pixels

LABELS = np.arange(6) % 2


def wrong(x: Any = None, y: Any = None, classes: tuple[str, ...] = ("a", "b")) -> str:
    x, y = pixels(6) if x is None else x, LABELS if y is None else y
    with pytest.raises(MissingDataError) as caught:
        check_arrays("mine", (x, y), (pixels(2), LABELS[:2]), classes)
    return str(caught.value)


@pytest.mark.parametrize(
    ("x", "said"),
    [
        (pixels(6).astype(np.float32), "x_train is float32 (6, 32, 32, 3), expected uint8 (N, H, W, 3)"),
        (pixels(6).astype(object), "x_train is object (6, 32, 32, 3)"),
        (pixels(6)[..., 0], "x_train is uint8 (6, 32, 32)"),
        (pixels(6)[..., :1], "x_train is uint8 (6, 32, 32, 1)"),
        (pixels(6)[:, :0], "x_train is uint8 (6, 0, 32, 3)"),
        (np.uint8(3), "x_train is uint8"),
        ([1, 2], "x_train is list"),
        (pixels(6)[:5], "y_train is (6,) for 5 images"),
    ],
)
def test_images_that_are_none(x: Any, said: str) -> None:
    assert said in wrong(x=x)


@pytest.mark.parametrize(
    ("y", "said"),
    [
        (np.array(list("ababab")), "y_train is <U1, expected integers that count classes from 0"),
        (LABELS.astype(np.float64), "y_train is float64, expected integers"),
        (LABELS.astype(bool), "y_train is bool, expected integers"),
        (LABELS.astype(object), "y_train is object, expected integers"),
        (LABELS[:, None], "y_train is (6, 1) for 6 images, expected one label an image"),
        (LABELS - 1, "y_train has labels outside 0..1: from -1 to 0"),
        (np.full(6, 2**63, np.uint64), "y_train has labels outside 0..1"),
        (LABELS[:0], "y_train is (0,) for 6 images"),
    ],
)
def test_labels_that_are_none(y: Any, said: str) -> None:
    assert said in wrong(y=y)


def test_all_that_is_wrong_is_said_on_one_line() -> None:
    said = wrong(pixels(6).astype(np.int64), LABELS.astype(float), ())
    assert said.startswith("mine: 0 classes; there must be 1 to 100,000; x_train is int64")
    assert "y_train is float64" in said
    assert "\n" not in said


def test_no_training_images_are_an_error_and_no_test_images_are_not() -> None:
    assert "x_train has no images" in wrong(pixels(0), LABELS[:0])
    assert len(data.from_arrays("x", (pixels(6), LABELS), (pixels(0), LABELS[:0]), "ab").y_test) == 0


def test_classes_are_the_named_ones_or_those_that_labels_count() -> None:
    labels = {"y_train": LABELS, "y_test": np.array([4])}
    assert class_names("x", labels) == ["0", "1", "2", "3", "4"]
    assert class_names("x", {**labels, "class_names": np.array(["a", "b"])}) == ["a", "b"]
    with pytest.raises(MissingDataError, match="class_names is <U1"):
        class_names("x", {**labels, "class_names": np.array("a")})
    with pytest.raises(MissingDataError, match=r"y_test has labels outside 0\.\.99999"):
        class_names("x", {**labels, "y_test": np.array([10**9])})


def test_a_data_set_that_somebodys_own_function_made_is_looked_at_too(own_names: None) -> None:
    def load(*_: object) -> data.Dataset:
        return data.Dataset(
            "own", pixels(6).astype(np.float32), LABELS, pixels(2), LABELS[:2], ("a", "b"), ""
        )

    data.register("own", load)
    with pytest.raises(MissingDataError, match="own: x_train is float32"):
        data.load("own")


@pytest.mark.parametrize(
    ("result", "words"),
    [
        (lambda *_: 1 / 0, "data set 'own' cannot be read: ZeroDivisionError: division by zero"),
        (lambda *_: (pixels(2), LABELS), "data set 'own': its function returned tuple, not a Dataset"),
    ],
)
def test_a_function_that_fails_is_named(own_names: None, result: Any, words: str) -> None:
    data.register("own", result)
    with pytest.raises(Exception, match=words) as caught:
        data.load("own")
    assert isinstance(caught.value, data.sources.FedAsiError)


def test_an_npy_or_half_an_npz_is_no_data_set(tmp_path: Path) -> None:
    path = tmp_path / "mine.npz"
    with path.open("wb") as file:
        np.save(file, pixels(2))
    with pytest.raises(MissingDataError, match=r"mine\.npz is not a data set: no \.npz"):
        data.load(str(path))
    np.savez(path, x_train=pixels(6), y_train=LABELS)
    with pytest.raises(MissingDataError, match="it has no x_test and no y_test"):
        data.load(str(path))
    np.savez(path, x_train=pixels(6), y_train=LABELS, x_test=pixels(2), y_test=LABELS[:2].astype(object))
    with pytest.raises(MissingDataError, match="is not a data set: ValueError: Object arrays"):
        data.load(str(path))
    content = bytearray(path.read_bytes())
    content[200] ^= 255
    path.write_bytes(content)
    with pytest.raises(MissingDataError, match="is not a data set"):
        data.load(str(path))
