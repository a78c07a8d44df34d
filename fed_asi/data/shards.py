"""Which device holds which samples: every sample on exactly one device, and no device below its minimum.

The schemes are those of the federated literature, as flwr-datasets defines them, but they always end: where a
draw leaves a device below the minimum, samples move to it from the largest shards instead of drawing again.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fed_asi import seeds
from fed_asi.errors import ConfigError

Indices = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Iid:
    """Shards drawn uniformly, their sizes equal to within one sample."""

    minimum: int = 1


@dataclass(frozen=True, slots=True)
class Dirichlet:
    """Each class is shared out by a draw of Dirichlet(alpha, ..., alpha) over the devices.

    Source: Hsu, Qi, Brown, "Measuring the Effects of Non-Identical Data
    Distribution", 2019 (arXiv 1909.06335).
    """

    alpha: float
    minimum: int = 1


@dataclass(frozen=True, slots=True)
class ClassesPerDevice:
    """Each device holds samples of `classes` classes, and each class is cut evenly among those that hold it.

    Source: McMahan et al., "Communication-Efficient Learning of Deep Networks from Decentralized Data", 2017.
    """

    classes: int
    minimum: int = 1


Scheme = Iid | Dirichlet | ClassesPerDevice


@dataclass(frozen=True, slots=True)
class Shards:
    """The samples of every device in one array: device i holds indices[offsets[i]:offsets[i + 1]], sorted."""

    indices: Indices
    offsets: Indices

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, partition_id: int) -> Indices:
        if not 0 <= partition_id < len(self):
            raise IndexError(f"partition_id {partition_id} is not in 0..{len(self) - 1}")
        return self.indices[self.offsets[partition_id] : self.offsets[partition_id + 1]]

    def __iter__(self) -> Iterator[Indices]:
        return (self[partition_id] for partition_id in range(len(self)))

    @property
    def sizes(self) -> Indices:
        """Samples of each device, (devices,)."""
        return np.diff(self.offsets)


def make(labels: NDArray[np.integer], num_devices: int, scheme: Scheme, seed: int) -> Shards:
    """Return the shards of `num_devices` devices over samples 0..len(labels) - 1, a pure function of `seed`.

    labels: (N,) class of each sample. Raises ConfigError where no such shards exist.
    """
    labels = np.asarray(labels)
    _check(len(labels), num_devices, scheme)
    rng = seeds.rng(seed, "shards")
    match scheme:
        case Iid():
            owner = _iid(len(labels), num_devices, rng)
        case Dirichlet():
            owner = _dirichlet(labels, num_devices, scheme.alpha, rng)
        case ClassesPerDevice():
            owner = _classes_per_device(labels, num_devices, scheme.classes, rng)
    _raise_to_minimum_(owner, num_devices, scheme.minimum, rng)
    order = np.argsort(owner, kind="stable")
    sizes = np.bincount(owner, minlength=num_devices)
    return Shards(order.astype(np.int64), np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64))


def _check(samples: int, devices: int, scheme: Scheme) -> None:
    problems = []
    if devices < 1:
        problems.append(f"{devices} devices: at least one is needed")
    if scheme.minimum < 0:
        problems.append(f"a minimum of {scheme.minimum} samples a device is below 0")
    if isinstance(scheme, Dirichlet) and not (0 < scheme.alpha < float("inf")):
        problems.append(f"alpha {scheme.alpha} must be above 0 and finite")
    if isinstance(scheme, ClassesPerDevice) and scheme.classes < 1:
        problems.append(f"{scheme.classes} classes a device: at least one is needed")
    if devices * scheme.minimum > samples:
        problems.append(
            f"{scheme} over {devices} devices needs {devices * scheme.minimum} samples, there are {samples}; "
            "use fewer devices, a lower minimum, or more data"
        )
    if problems:
        raise ConfigError(problems)


def _iid(samples: int, devices: int, rng: np.random.Generator) -> Indices:
    return rng.permutation(np.arange(samples, dtype=np.int64) % devices)


def _dirichlet(labels: NDArray[np.integer], devices: int, alpha: float, rng: np.random.Generator) -> Indices:
    owner = np.empty(len(labels), dtype=np.int64)
    for label in np.unique(labels):
        members = rng.permutation(np.flatnonzero(labels == label))
        shares = np.cumsum(_dirichlet_shares(devices, alpha, rng))
        ends = np.round(shares * len(members)).astype(np.int64)
        ends[-1] = len(members)
        owner[members] = np.searchsorted(ends, np.arange(len(members)), side="right")
    return owner


def _dirichlet_shares(devices: int, alpha: float, rng: np.random.Generator) -> NDArray[np.float64]:
    """Return one draw that sums to 1, also where alpha is so small that gamma variates underflow."""
    # Gamma(a) = Gamma(a + 1) * U^(1/a), in logarithms: numpy's own draw is 0/0 from alpha 1e-3 on.
    logs = np.log(rng.standard_gamma(alpha + 1, devices)) + np.log1p(-rng.random(devices)) / alpha
    shares = np.exp(logs - logs.max())
    return np.asarray(shares / shares.sum(), dtype=np.float64)


def _classes_per_device(
    labels: NDArray[np.integer], devices: int, classes: int, rng: np.random.Generator
) -> Indices:
    known = np.unique(labels)
    if classes > len(known):
        raise ConfigError(f"{classes} classes a device, but the data has {len(known)}")
    holders: list[list[int]] = [[] for _ in known]
    for device in range(devices):
        # The first class goes round, so that no class is left without a device while there are enough.
        first = device % len(known)
        others = rng.choice(np.delete(np.arange(len(known)), first), classes - 1, replace=False)
        for label in (first, *others):
            holders[label].append(device)
    if devices * classes < len(known):
        raise ConfigError(
            f"{devices} devices of {classes} classes hold at most {devices * classes} of {len(known)}; "
            "use more devices or more classes a device"
        )
    for label, devices_of in enumerate(holders):
        if not devices_of:  # fewer devices than classes: the spare draws above missed this one
            raise ConfigError(
                f"class {known[label]} is on no device of {devices} with {classes} classes each"
            )
    owner = np.empty(len(labels), dtype=np.int64)
    for label, devices_of in zip(known, holders, strict=True):
        members = rng.permutation(np.flatnonzero(labels == label))
        owner[members] = np.asarray(devices_of)[np.arange(len(members)) % len(devices_of)]
    return owner


def _raise_to_minimum_(owner: Indices, devices: int, minimum: int, rng: np.random.Generator) -> None:
    """Give devices below `minimum` samples of those that have most, in place."""
    sizes = np.bincount(owner, minlength=devices)
    for device in np.flatnonzero(sizes < minimum):
        while sizes[device] < minimum:
            donor = int(np.argmax(sizes))
            moved = rng.choice(np.flatnonzero(owner == donor))
            owner[moved] = device
            sizes[donor] -= 1
            sizes[device] += 1
