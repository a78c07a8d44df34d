"""Data sets in torchvision's layout, and one line if they are neither here nor reachable."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest

from fed_asi import data
from fed_asi.errors import MissingDataError
from pictures import image, pixels


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
