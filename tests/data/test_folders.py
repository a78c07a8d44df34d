"""Data sets in folders, in their publishers' layout."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fed_asi import data
from fed_asi.errors import MissingDataError
from pictures import image, imagenet


def test_imagenet_from_class_folders(tmp_path: Path) -> None:
    (imagenet(tmp_path) / "imagenet" / "train" / "a" / "readme.txt").touch()
    found = data.load("imagenet", tmp_path, size=16)
    assert found.class_names == ("a", "b", "c", "d")
    assert list(found.y_train) == [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3]
    assert found.x_train[np.array([0, 11])].shape == (2, 16, 16, 3)
    assert [int(x[0, 0, 0]) for x in found.x_test[:]] == [0, 0, 10, 10, 20, 20, 30, 30]


def test_cub200_from_its_lists(tmp_path: Path) -> None:
    root = tmp_path / "CUB_200_2011"
    image(root / "images" / "001.A" / "x.jpg")
    image(root / "images" / "002.B" / "y.jpg")
    (root / "images.txt").write_text("1 001.A/x.jpg\n2 002.B/y.jpg\n")
    (root / "image_class_labels.txt").write_text("1 1\n2 2\n")
    (root / "train_test_split.txt").write_text("1 1\n2 0\n")
    (root / "classes.txt").write_text("1 001.A\n2 002.B\n")
    found = data.load("cub200", tmp_path, size=8)
    assert (list(found.y_train), list(found.y_test)) == ([0], [1])
    (root / "images" / "002.B" / "y.jpg").unlink()
    with pytest.raises(MissingDataError, match=r"1 images are missing, such as .*y\.jpg"):
        data.load("cub200", tmp_path)


@pytest.mark.parametrize(("name", "words"), [("imagenet", "no training images"), ("cub200", r"images\.txt")])
def test_an_empty_folder_is_named(tmp_path: Path, name: str, words: str) -> None:
    with pytest.raises(MissingDataError, match=words):
        data.load(name, tmp_path)


def test_data_that_is_never_downloaded_says_so() -> None:
    with pytest.raises(MissingDataError, match=r"imagenet is not downloaded for you: .*--data-dir"):
        data.load("imagenet")


def test_a_test_class_without_training_images_is_named(tmp_path: Path) -> None:
    image(imagenet(tmp_path) / "imagenet" / "val" / "odd" / "0.png")
    with pytest.raises(
        MissingDataError, match="has classes that the training images do not have, such as odd"
    ):
        data.load("imagenet", tmp_path)


def test_hidden_files_are_no_images_and_hidden_folders_no_classes(tmp_path: Path) -> None:
    """As macOS (._0.png) and notebooks (.ipynb_checkpoints) leave them."""
    train = imagenet(tmp_path) / "imagenet" / "train"
    (train / "a" / "._0.png").write_bytes(b"no image")
    (train / ".ipynb_checkpoints").mkdir()
    found = data.load("imagenet", tmp_path, size=4)
    assert found.class_names == ("a", "b", "c", "d")
    assert found.x_train[:].shape == (12, 4, 4, 3)


def test_a_link_to_nothing_is_named(tmp_path: Path) -> None:
    (imagenet(tmp_path) / "imagenet" / "train" / "b" / "9.png").symlink_to(tmp_path / "gone.png")
    with pytest.raises(
        MissingDataError, match=r"9\.png is not a file, or a broken link; remove or replace it"
    ):
        data.load("imagenet", tmp_path)
