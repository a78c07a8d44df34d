"""Images by use: none is used twice, and there are enough for all."""

from __future__ import annotations

import numpy as np
import pytest

from fed_asi.data.dataset import Dataset
from fed_asi.errors import ConfigError
from fed_asi.workplace.splits import split_images
from runs import small


@pytest.fixture(scope="module")
def numbered() -> Dataset:
    """Images that are their own numbers: bytes 256 and 1 of the first two channels."""
    count = 500
    x = np.zeros((count, 2, 2, 3), np.uint8)
    x[..., 0], x[..., 1] = (np.arange(count) // 256)[:, None, None], (np.arange(count) % 256)[:, None, None]
    return Dataset(
        "numbered", x, np.arange(count) % 10, x[:80], np.zeros(80, np.int64), tuple("0123456789"), "f"
    )


def numbers_of(images) -> list[int]:
    first = [np.asarray(images[i])[0, 0].astype(int) for i in range(len(images))]
    return [int(256 * red + green) for red, green, _ in first]


def test_the_servers_images_are_on_no_device(numbered):
    found = split_images(small(), numbered)
    public, train = numbers_of(found.public[0]), numbers_of(found.train[0])
    assert [len(labels) for _, labels in (found.public, found.train, found.test)] == [64, 240, 64]
    assert len(set(public) | set(train)) == 64 + 240
    assert found.public[1].tolist() == [number % 10 for number in public]
    assert found.train[1].tolist() == [number % 10 for number in train]


def test_a_validation_split_takes_the_tests_place(numbered):
    config = small(data={"validation": 50, "test_limit": 40})
    found = split_images(config, numbered)
    judged = numbers_of(found.test[0])
    assert judged == list(range(450, 490))
    assert not set(judged) & {*numbers_of(found.public[0]), *numbers_of(found.train[0])}


def test_the_same_seed_gives_the_same_split(numbered):
    splits = [numbers_of(split_images(small(seed=seed), numbered).public[0]) for seed in (1, 1, 2)]
    assert splits[0] == splits[1] != splits[2]


def test_fewer_images_than_devices_are_refused(numbered):
    with pytest.raises(
        ConfigError, match=r"data\.limit: 5 training images for 6 devices, each of which needs one"
    ):
        split_images(small(data={"limit": 5}), numbered)
