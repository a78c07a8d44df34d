"""From pixels to a network's input, and images read from disk only when asked for."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from fed_asi import data
from fed_asi.data.images import FileImages, images_fingerprint, select, to_batch
from fed_asi.errors import MissingDataError
from pictures import image, imagenet, pixels


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


def test_what_is_no_image_is_found_without_reading_it_all(tmp_path: Path) -> None:
    whole = data.load("imagenet", imagenet(tmp_path), size=4)
    picked = select(select(whole.x_train, np.arange(4)), np.array([3, 1]))
    picked.check()
    Path(whole.x_train.paths[3]).write_bytes(b"nothing")
    with pytest.raises(
        MissingDataError, match=r"0\.png is not a readable image \(UnidentifiedImageError.*remove or"
    ):
        picked.check()
    select(whole.x_train, np.array([1])).check()


def test_an_image_larger_than_pillow_reads_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image(tmp_path / "x.png", size=(300, 300))
    monkeypatch.setattr("PIL.Image.MAX_IMAGE_PIXELS", 40_000)  # twice as many are an error
    large = FileImages([tmp_path / "x.png"], 8)
    for read in (large.check, lambda: large[:]):
        with pytest.raises(
            MissingDataError, match=r"x\.png is not a readable image \(DecompressionBombError"
        ):
            read()
