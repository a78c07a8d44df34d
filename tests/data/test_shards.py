"""Shards: every sample on one device, no device below its minimum, at any size; otherwise an error that says why."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fed_asi.data.shards import ClassesPerDevice, Dirichlet, Iid, Scheme, Shards, make
from fed_asi.errors import ConfigError

LABELS = np.arange(50_000) % 10


def assert_partition(shards: Shards, samples: int, devices: int, minimum: int) -> None:
    assert len(shards) == devices
    assert np.array_equal(np.sort(np.concatenate(list(shards))), np.arange(samples))
    assert shards.sizes.min() >= minimum


@st.composite
def feasible(draw: st.DrawFn) -> tuple[np.ndarray, int, Scheme]:
    labels = np.array(draw(st.lists(st.integers(0, 6), min_size=1, max_size=80)))
    devices = draw(st.integers(1, len(labels)))
    minimum = draw(st.integers(0, len(labels) // devices))
    alpha = draw(st.floats(1e-320, 1e6))
    scheme: Scheme = draw(st.sampled_from([Iid(minimum), Dirichlet(alpha, minimum, draw(st.booleans()))]))
    known = len(np.unique(labels))
    fewest = -(-known // devices)
    if draw(st.booleans()):
        classes = draw(st.integers(fewest, known))
        scheme = ClassesPerDevice(classes, min(minimum, classes))
    return labels, devices, scheme


@given(feasible(), st.integers(0, 2**32))
def test_every_sample_is_on_one_device_and_every_device_has_its_minimum(case, seed: int) -> None:
    labels, devices, scheme = case
    shards = make(labels, devices, scheme, seed)
    assert_partition(shards, len(labels), devices, scheme.minimum)
    if isinstance(scheme, ClassesPerDevice):
        assert max(len(np.unique(labels[shard])) for shard in shards) <= scheme.classes


@pytest.mark.few(2)
@pytest.mark.parametrize(
    ("devices", "scheme"),
    [
        (1000, Dirichlet(0.1)),
        (5000, Dirichlet(0.5)),
        (5000, Dirichlet(1e-6, minimum=10)),
        (5000, ClassesPerDevice(2)),
        (5000, Iid()),
    ],
)
def test_thousands_of_devices_always_end(devices: int, scheme: Scheme) -> None:
    assert_partition(make(LABELS, devices, scheme, 0), 50_000, devices, scheme.minimum)


def test_the_seed_alone_decides() -> None:
    np.random.seed(1)
    first = make(LABELS, 100, Dirichlet(0.5), 3)
    np.random.seed(2)
    again, other = make(LABELS, 100, Dirichlet(0.5), 3), make(LABELS, 100, Dirichlet(0.5), 4)
    assert np.array_equal(first.indices, again.indices)
    assert np.array_equal(first.offsets, again.offsets)
    assert not np.array_equal(first.indices, other.indices)


def class_shares(shards: Shards) -> np.ndarray:
    counts = np.stack([np.bincount(LABELS[shard], minlength=10) for shard in shards])
    return counts / counts.sum(axis=0)


@pytest.mark.parametrize("alpha", [0.1, 1.0, 10.0])
def test_unbalanced_shares_have_the_variance_of_dirichlet(alpha: float) -> None:
    devices = 50
    shares = np.stack(
        [class_shares(make(LABELS, devices, Dirichlet(alpha, 0, balanced=False), s)) for s in range(8)]
    )
    mean = 1 / devices
    variance = mean * (1 - mean) / (devices * alpha + 1)
    assert shares.var() == pytest.approx(variance, rel=0.2)


def test_a_balanced_device_takes_no_class_after_its_even_part() -> None:
    shards = make(LABELS, 10, Dirichlet(0.1, 0), 0)
    for shard in shards:
        counts = np.bincount(LABELS[shard], minlength=10)
        full = np.flatnonzero(np.cumsum(counts) > 5000)
        assert len(full) == 0 or counts[full[0] + 1 :].sum() == 0


def test_a_large_alpha_is_nearly_even() -> None:
    assert class_shares(make(LABELS, 10, Dirichlet(1e6), 0)) == pytest.approx(
        np.full((10, 10), 0.1), abs=0.01
    )


def test_iid_sizes_differ_by_one_at_most() -> None:
    sizes = make(LABELS[:1003], 10, Iid(), 0).sizes
    assert sorted(sizes) == [100] * 7 + [101] * 3


def test_classes_per_device_holds_exactly_that_many_and_cuts_evenly() -> None:
    shards = make(LABELS, 100, ClassesPerDevice(2), 0)
    assert {len(np.unique(LABELS[shard])) for shard in shards} == {2}
    counts = np.stack([np.bincount(LABELS[shard], minlength=10) for shard in shards])
    for column in counts.T:
        assert np.ptp(column[column > 0]) <= 1


def test_few_devices_still_hold_every_class() -> None:
    assert_partition(make(LABELS, 3, ClassesPerDevice(4), 0), 50_000, 3, 1)


@pytest.mark.parametrize(
    ("devices", "scheme", "words"),
    [
        (60_000, Dirichlet(0.5), ["alpha=0.5", "60000 devices", "50000"]),
        (100, Dirichlet(0.1, minimum=501), ["alpha=0.1", "100 devices", "50100", "50000"]),
        (0, Iid(), ["0 devices"]),
        (10, Dirichlet(0.0), ["alpha 0.0"]),
        (10, Dirichlet(float("nan")), ["alpha nan"]),
        (10, Iid(minimum=-1), ["-1"]),
        (10, ClassesPerDevice(11), ["classes=11", "10 devices", "10 classes"]),
        (10, ClassesPerDevice(0), ["classes=0"]),
        (3, ClassesPerDevice(2), ["classes=2", "3 devices", "4 classes of 10"]),
    ],
)
def test_the_impossible_is_said_with_its_numbers(devices: int, scheme: Scheme, words: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        make(LABELS, devices, scheme, 0)
    for word in words:
        assert word in str(caught.value)


def test_a_minimum_out_of_reach_within_the_classes_is_said() -> None:
    labels = np.array([0] * 2 + [1] * 98)
    with pytest.raises(ConfigError, match="can spare"):
        make(labels, 2, ClassesPerDevice(1, minimum=40), 0)


def test_no_samples_is_an_error() -> None:
    with pytest.raises(ConfigError, match="needs 1 samples, there are 0"):
        make(np.array([], dtype=int), 1, Iid(minimum=0), 0)


def test_an_unknown_partition_id_is_an_index_error() -> None:
    with pytest.raises(IndexError, match="partition_id 5"):
        make(LABELS, 5, Iid(), 0)[5]
