"""Schemes: their shards have not changed, and your own schemes are held to the contract."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
import pytest

from fed_asi.data import shards
from fed_asi.data.schemes import ClassesPerDevice, Dirichlet, Iid, Scheme
from fed_asi.errors import ConfigError

LABELS = np.random.default_rng(5).integers(0, 10, 3000)


@pytest.mark.parametrize(
    ("scheme", "devices", "seed", "digest"),
    [
        (Iid(), 7, 0, "26dfbdf93e5166df"),
        (Iid(3), 700, 1, "3219b4285bf9ae9b"),
        (Dirichlet(0.5), 40, 2, "bc35c68a5ae19566"),
        (Dirichlet(0.1, 20), 100, 3, "4b60cd0d034b401a"),
        (Dirichlet(0.1, 5, balanced=False), 200, 4, "46b753de2faa733f"),
        (ClassesPerDevice(2), 100, 5, "6d8f7ad41e8f9de1"),
        (ClassesPerDevice(3, 9), 200, 6, "b0fb0c580a5c5b84"),
    ],
)
def test_shards_are_the_same_to_the_bit_as_in_the_first_version(
    scheme: Scheme, devices: int, seed: int, digest: str
) -> None:
    made = shards.make(LABELS, devices, scheme, seed)
    assert hashlib.sha256(made.indices.tobytes() + made.offsets.tobytes()).hexdigest()[:16] == digest


SAID = {
    "in turn": np.arange(3000, dtype=np.int32) % 4,
    "the first": np.zeros(3000, dtype=np.int32),
    "too few": np.zeros(2999, dtype=int),
    "no integers": np.zeros(3000),
    "beyond": np.full(3000, 4),
    "below": np.full(3000, -1),
    "nothing": None,
}


@dataclass(frozen=True)
class Said:
    """Says one of the above, whatever the labels."""

    which: str = "in turn"
    minimum: int = 1

    def owners(self, *_: object) -> np.ndarray:
        return SAID[self.which]  # type: ignore[return-value]


def test_a_scheme_of_ones_own_deals_the_samples(own_names: None) -> None:
    shards.register("said", Said)
    assert shards.find("said") is Said
    assert shards.names() == ["classes", "column", "dirichlet", "iid", "said"]
    made = shards.make(LABELS, 4, shards.find("said")(), seed=0)
    assert all(np.array_equal(shard, np.arange(device, 3000, 4)) for device, shard in enumerate(made))


def test_its_minimum_is_kept_whatever_it_says_and_what_it_said_is_left_alone() -> None:
    made = shards.make(LABELS, 4, Said("the first", 10), seed=0)
    assert list(made.sizes) == [2970, 10, 10, 10]
    assert not SAID["the first"].any()


@pytest.mark.parametrize("which", ["too few", "no integers", "beyond", "below", "nothing"])
def test_a_scheme_that_does_not_say_who_owns_each_sample_is_named(which: str) -> None:
    words = r"Said.* over 4 devices: owners must be a device from 0 to 3 for each of 3000 samples"
    with pytest.raises(ConfigError, match=words):
        shards.make(LABELS, 4, Said(which), seed=0)


class NoDataclass:
    minimum = 1

    def owners(self, *_: object) -> np.ndarray:
        return np.zeros(1, dtype=int)


@dataclass(frozen=True)
class NoMinimum:
    def owners(self, *_: object) -> np.ndarray:
        return np.zeros(1, dtype=int)


@dataclass(frozen=True)
class NoOwners:
    minimum: int = 1


@pytest.mark.parametrize("scheme", [NoDataclass, NoMinimum, NoOwners])
def test_a_class_that_is_no_scheme_is_refused_when_it_is_registered(scheme: type) -> None:
    with pytest.raises(
        ConfigError, match=f"{scheme.__name__} must be a dataclass with a field minimum and a method"
    ):
        shards.register("odd", scheme)
    assert "odd" not in shards.names()


def test_an_unknown_name_gets_the_nearest_ones() -> None:
    with pytest.raises(ConfigError, match="unknown sharding scheme 'dirichelt'; did you mean dirichlet"):
        shards.find("dirichelt")


WRITERS = np.array(["b", "a", "c", "a", "d", "b", "a", "e"])


def by_writer(devices: int, *, minimum: int = 1, column: str = "writer", seed: int = 0) -> list[set[str]]:
    scheme = shards.ByColumn(column, minimum)
    found = shards.make(np.zeros(8, dtype=int), devices, scheme, seed, {"writer": WRITERS})
    return [set(WRITERS[shard]) for shard in found]


def test_as_many_values_as_devices_are_one_each() -> None:
    assert by_writer(5) == [{"a"}, {"b"}, {"c"}, {"d"}, {"e"}]


def test_more_values_are_dealt_whole() -> None:
    dealt = by_writer(2)
    assert sorted(map(len, dealt)) == [2, 3]
    assert set.union(*dealt) == set("abcde")
    assert dealt == by_writer(2)
    assert any(by_writer(2, seed=seed) != dealt for seed in range(1, 5))


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (lambda: by_writer(6), "'writer' has 5 values in 8 samples, for 6 devices"),
        (lambda: by_writer(5, column="writers"), "no column 'writers'; did you mean writer?"),
        (lambda: by_writer(4, minimum=2), "minimum: 2 samples a device, but by 'writer' device"),
        (
            lambda: shards.make(np.zeros(8, dtype=int), 2, shards.ByColumn("writer"), 0),
            "no column 'writer'; they have only labels",
        ),
    ],
)
def test_what_a_column_cannot_do_is_said(asked, said) -> None:
    with pytest.raises(ConfigError) as caught:
        asked()
    assert said in str(caught.value)
