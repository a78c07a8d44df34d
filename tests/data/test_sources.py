"""Data sets by name: real digits, folders as publishers lay them out, and one line where there is nothing."""

from __future__ import annotations

import pickle
import socket
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from fed_asi import data
from fed_asi.data.images import FileImages, images_fingerprint, select, to_batch
from fed_asi.errors import ConfigError, MissingDataError


@pytest.fixture(autouse=True)
def nowhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def refuse(*_: object, **__: object) -> socket.socket:
        raise OSError("no network")

    monkeypatch.delenv("FED_ASI_DATA_DIR", raising=False)
    monkeypatch.setenv("FED_ASI_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(socket, "create_connection", refuse)


def pixels(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, 32, 32, 3), dtype=np.uint8)


def image(path: Path, colour: tuple[int, int, int] = (10, 20, 30), size: tuple[int, int] = (12, 8)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path)


def test_digits_are_all_there_and_always_the_same() -> None:
    digits, again = data.load("digits"), data.load("digits")
    assert digits.x_train[:].shape == (1437, 32, 32, 3)
    assert digits.x_test[:].shape == (360, 32, 32, 3)
    assert digits.num_classes == 10
    assert digits.fingerprint == again.fingerprint
    assert set(np.unique(digits.y_test)) == set(range(10))


def test_cifar10_from_an_npz(cifar10_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FED_ASI_DATA_DIR", str(cifar10_dir))
    cifar = data.load("cifar10")
    assert cifar.x_train[:].shape == (50_000, 32, 32, 3)
    assert cifar.x_train[:].mean(axis=(0, 1, 2)) / 255 == pytest.approx([0.49140, 0.48216, 0.44653], abs=1e-5)
    assert cifar.class_names[0] == "airplane"
    split = cifar.split(public=300, validation=10_000, seed=0)
    assert np.array_equal(split.validation, np.arange(40_000, 50_000))
    assert np.array_equal(np.sort(np.concatenate([split.public, split.train])), np.arange(40_000))


def test_any_npz_in_the_folder_is_a_data_set_of_its_name(tmp_path: Path) -> None:
    np.savez(tmp_path / "mine.npz", x_train=pixels(6), y_train=[0, 1] * 3, x_test=pixels(2), y_test=[0, 2])
    mine = data.load("mine", tmp_path)
    assert (mine.name, mine.num_classes, len(mine.x_train)) == ("mine", 3, 6)


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


def test_a_file_that_is_no_npz_is_named(tmp_path: Path) -> None:
    (tmp_path / "mine.npz").write_bytes(b"not a zip")
    with pytest.raises(MissingDataError, match=r"mine\.npz is not a data set"):
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


@pytest.mark.parametrize("name", ["cifar10", "cifar100", "flowers102", "pets"])
def test_no_data_and_no_network_is_one_line_with_three_ways(name: str) -> None:
    with pytest.raises(MissingDataError) as caught:
        data.load(name)
    text = str(caught.value)
    assert "\n" not in text
    for way in (name, "--data-dir", "FED_ASI_DATA_DIR", "network"):
        assert way in text


def test_cifar100_as_torchvision_lays_it_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from fed_asi.models.torchvision_shim import torchvision

    folder = tmp_path / "cifar-100-python"
    folder.mkdir()
    for part, count in (("train", 6), ("test", 4)):
        rows = pixels(count).transpose(0, 3, 1, 2).reshape(count, -1)
        (folder / part).write_bytes(pickle.dumps({"data": rows, "fine_labels": list(range(count))}))
    (folder / "meta").write_bytes(pickle.dumps({"fine_label_names": [f"c{i}" for i in range(100)]}))
    monkeypatch.setattr(torchvision.datasets.CIFAR10, "_check_integrity", lambda _: True)
    monkeypatch.setattr("torchvision.datasets.cifar.check_integrity", lambda *_: True)
    found = data.load("cifar100", tmp_path)
    assert np.array_equal(found.x_train[:], pixels(6))
    assert (found.num_classes, list(found.y_test)) == (100, [0, 1, 2, 3])


def test_pets_as_torchvision_lays_them_out(tmp_path: Path) -> None:
    base = tmp_path / "oxford-iiit-pet"
    (base / "annotations").mkdir(parents=True)
    for part, names in (("trainval", ["Abyssinian_1", "boxer_2"]), ("test", ["boxer_3"])):
        lines = [f"{name} {1 + (name[0] == 'b')} 1 1" for name in names]
        (base / "annotations" / f"{part}.txt").write_text("\n".join(lines))
        for name in names:
            image(base / "images" / f"{name}.jpg")
    found = data.load("pets", tmp_path, size=8)
    assert found.x_train[:].shape == (2, 8, 8, 3)
    assert list(found.y_train) == [0, 1]
    assert list(found.y_test) == [1]


def test_flowers_as_torchvision_lays_them_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from scipy.io import savemat

    from fed_asi.models import torchvision_shim  # noqa: F401 - so that what is patched below can be imported

    base = tmp_path / "flowers-102"
    for index in range(1, 7):
        image(base / "jpg" / f"image_{index:05d}.jpg")
    savemat(base / "imagelabels.mat", {"labels": [[1, 2, 3, 4, 5, 102]]})
    savemat(base / "setid.mat", {"trnid": [[1, 2]], "valid": [[3, 4]], "tstid": [[5, 6]]})
    monkeypatch.setattr("torchvision.datasets.flowers102.check_integrity", lambda *_: True)
    found = data.load("flowers102", tmp_path, size=8)
    assert (list(found.y_train), list(found.y_test)) == ([0, 1, 2, 3], [4, 101])
    assert found.x_test[:].shape == (2, 8, 8, 3)


def imagenet(folder: Path, classes: str = "abcd") -> Path:
    for part, count in (("train", 3), ("val", 2)):
        for number, kind in enumerate(classes):
            for index in range(count):
                image(folder / "imagenet" / part / kind / f"{index}.png", (number * 10, 0, 0))
    return folder


def test_imagenet_from_class_folders(tmp_path: Path) -> None:
    (imagenet(tmp_path) / "imagenet" / "train" / "a" / "readme.txt").touch()
    found = data.load("imagenet", tmp_path, size=16)
    assert found.class_names == ("a", "b", "c", "d")
    assert list(found.y_train) == [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3]
    assert found.x_train[np.array([0, 11])].shape == (2, 16, 16, 3)
    assert [int(x[0, 0, 0]) for x in found.x_test[:]] == [0, 0, 10, 10, 20, 20, 30, 30]


def test_halves_share_no_class_and_lose_no_image(tmp_path: Path) -> None:
    whole = data.load("imagenet", imagenet(tmp_path), size=4)
    first, second = data.halves(whole, seed=1)
    assert not set(first.y_train) & set(second.y_train)
    assert set(first.y_train) == set(first.y_test)
    assert len(first.y_train) + len(second.y_train) == len(whole.y_train)
    assert len({whole.fingerprint, first.fingerprint, second.fingerprint}) == 3
    assert [int(x[0, 0, 0]) // 10 for x in first.x_train[:]] == list(first.y_train)
    assert first.num_classes == 4


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


def test_an_unknown_name_gets_the_nearest_ones() -> None:
    with pytest.raises(ConfigError, match=r"unknown data set 'cifar_10'; did you mean cifar10"):
        data.load("cifar_10")


def test_a_broken_image_is_named(tmp_path: Path) -> None:
    (tmp_path / "x.jpg").write_bytes(b"nothing")
    with pytest.raises(MissingDataError, match=r"x\.jpg is not a readable image"):
        FileImages([tmp_path / "x.jpg"], 8)[:]


def test_a_batch_is_normalised_and_resized() -> None:
    white = np.full((2, 8, 8, 3), 255, np.uint8)
    batch = to_batch(white, 16, (0.5, 0.5, 0.5), (0.5, 0.25, 0.5))
    assert batch.shape == (2, 3, 16, 16)
    assert batch.dtype is torch.float32
    assert torch.equal(batch[:, 0], torch.ones(2, 16, 16))
    assert torch.equal(batch[:, 1], torch.full((2, 16, 16), 2.0))
    assert to_batch(white, 4, (0.5,) * 3, (0.5,) * 3).shape == (2, 3, 4, 4)


def test_selected_files_are_read_when_asked_for_and_have_their_own_fingerprint(tmp_path: Path) -> None:
    whole = data.load("imagenet", imagenet(tmp_path), size=4)
    some = select(whole.x_train, np.array([5, 0]))
    assert not isinstance(some, np.ndarray)
    assert np.array_equal(some[:], whole.x_train[np.array([5, 0])])
    prints = {
        images_fingerprint(some),
        images_fingerprint(whole.x_train),
        images_fingerprint(whole.x_train[:]),
    }
    assert len(prints) == 3
    assert np.array_equal(select(pixels(3), np.array([2])), pixels(3)[[2]])
