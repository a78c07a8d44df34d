"""Which device holds which samples: every sample on exactly one device, and no device below its minimum.

The schemes are those of the federated literature, as flwr-datasets defines them, but they always end: where a
draw leaves a device below the minimum, samples move to it from the largest shards instead of drawing again.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from heapq import heapify, heapreplace

import numpy as np
from numpy.typing import NDArray

from fed_asi import seeds
from fed_asi.errors import ConfigError

Indices = NDArray[np.int64]
Labels = NDArray[np.integer]


@dataclass(frozen=True, slots=True)
class Iid:
    """Shards drawn uniformly, their sizes equal to within one sample."""

    minimum: int = 1


@dataclass(frozen=True, slots=True)
class Dirichlet:
    """Each class is shared out by its own draw of Dirichlet(alpha, ..., alpha) over the devices.

    balanced: a device that holds more than its even part takes nothing of the classes still to come.
    Source: Yurochkin et al., "Bayesian Nonparametric Federated Learning of Neural Networks", 2019
    (arXiv 1905.12022), whose code balances so; Hsu, Qi, Brown (arXiv 1909.06335) without balancing.
    """

    alpha: float
    minimum: int = 1
    balanced: bool = True


@dataclass(frozen=True, slots=True)
class ClassesPerDevice:
    """Each device holds samples of at most `classes` classes; a class is cut evenly among its holders.

    The first class of device i is class i, i + devices, ... (modulo the number of classes), the others are
    drawn, so every class has a holder.
    Source: Li et al., "Federated Learning on Non-IID Data Silos", 2021 (arXiv 2102.02079).
    """

    classes: int
    minimum: int = 1


Scheme = Iid | Dirichlet | ClassesPerDevice


@dataclass(frozen=True, slots=True, eq=False)
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


def make(labels: Labels, num_devices: int, scheme: Scheme, seed: int) -> Shards:
    """Return the shards of `num_devices` devices over samples 0..len(labels) - 1, a pure function of `seed`.

    labels: (N,) class of each sample.
    Raises ConfigError that names the scheme, the devices and the samples where no such shards exist.
    """
    labels = np.asarray(labels)
    _check(labels, num_devices, scheme)
    rng = seeds.rng(seed, "shards")
    match scheme:
        case Iid():
            owner = rng.permutation(np.arange(len(labels), dtype=np.int64) % num_devices)
        case Dirichlet():
            owner = _dirichlet(labels, num_devices, scheme, rng)
        case ClassesPerDevice():
            owner = _classes_per_device(labels, num_devices, scheme, rng)
    if isinstance(scheme, ClassesPerDevice):
        _raise_within_classes_(owner, labels, num_devices, scheme)
    else:
        _raise_to_minimum_(owner, num_devices, scheme.minimum, rng)
    order = np.argsort(owner, kind="stable")
    sizes = np.bincount(owner, minlength=num_devices)
    return Shards(order.astype(np.int64), np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64))


def _check(labels: Labels, devices: int, scheme: Scheme) -> None:
    problems = []
    if devices < 1:
        problems.append(f"{devices} devices: at least one is needed")
    if scheme.minimum < 0:
        problems.append(f"a minimum of {scheme.minimum} samples a device is below 0")
    if isinstance(scheme, Dirichlet) and not 0 < scheme.alpha < float("inf"):
        problems.append(f"alpha {scheme.alpha} must be above 0 and finite")
    needed = max(devices * scheme.minimum, 1)
    if needed > len(labels):
        problems.append(
            f"{scheme} over {devices} devices needs {needed} samples, there are {len(labels)}; "
            "use fewer devices, a lower minimum, or more data"
        )
    elif isinstance(scheme, ClassesPerDevice):
        known = len(np.unique(labels))
        if not 1 <= scheme.classes <= known:
            problems.append(
                f"{scheme} over {devices} devices: the {len(labels)} samples have {known} classes"
            )
        elif devices * scheme.classes < known:
            problems.append(
                f"{scheme} over {devices} devices leaves {known - devices * scheme.classes} classes "
                f"of {known} ({len(labels)} samples) on no device; use more devices or more classes a device"
            )
    if problems:
        raise ConfigError(problems)


def _dirichlet(labels: Labels, devices: int, scheme: Dirichlet, rng: np.random.Generator) -> Indices:
    owner = np.empty(len(labels), dtype=np.int64)
    sizes = np.zeros(devices, dtype=np.int64)
    for label in np.unique(labels):
        members = rng.permutation(np.flatnonzero(labels == label))
        closed = sizes > len(labels) / devices if scheme.balanced else np.zeros(devices, dtype=bool)
        shares = _dirichlet_shares(scheme.alpha, closed, rng)
        ends = (np.cumsum(shares) * len(members)).astype(np.int64)
        ends[np.flatnonzero(~closed)[-1] :] = len(members)  # rounding must not lose the last samples
        owner[members] = np.searchsorted(ends, np.arange(len(members)), side="right")
        sizes += np.bincount(owner[members], minlength=devices)
    return owner


def _dirichlet_shares(
    alpha: float, closed: NDArray[np.bool_], rng: np.random.Generator
) -> NDArray[np.float64]:
    """Return one draw over the open devices; it sums to 1 however small alpha is."""
    # Gamma(a) = Gamma(a + 1) U^(1/a), in logarithms: numpy's own draw becomes 0/0 at small alpha.
    alpha = max(alpha, 1e-12)  # where one device gets the whole class anyway
    logs = np.log(rng.standard_gamma(alpha + 1, len(closed))) + np.log1p(-rng.random(len(closed))) / alpha
    logs[closed] = -np.inf
    shares = np.exp(logs - logs.max())
    return np.asarray(shares / shares.sum(), dtype=np.float64)


def _classes_per_device(
    labels: Labels, devices: int, scheme: ClassesPerDevice, rng: np.random.Generator
) -> Indices:
    known, codes = np.unique(labels, return_inverse=True)
    holders: list[list[int]] = [[] for _ in known]
    for device in range(devices):
        first = np.arange(device % len(known), len(known), devices)[: scheme.classes]
        others = np.setdiff1d(np.arange(len(known)), first)
        for code in (*first, *rng.choice(others, scheme.classes - len(first), replace=False)):
            holders[code].append(device)
    owner = np.empty(len(labels), dtype=np.int64)
    for code, devices_of in enumerate(holders):
        members = rng.permutation(np.flatnonzero(codes == code))
        # The remainder starts anywhere, else the first devices would get it of every class.
        turn = (np.arange(len(members)) + rng.integers(len(devices_of))) % len(devices_of)
        owner[members] = np.asarray(devices_of)[turn]
    return owner


def _raise_to_minimum_(owner: Indices, devices: int, minimum: int, rng: np.random.Generator) -> None:
    """Give devices below `minimum` random samples of those that have most, in place."""
    sizes = np.bincount(owner, minlength=devices)
    missing = np.repeat(np.arange(devices), np.maximum(minimum - sizes, 0))
    heap = [(-int(size), device) for device, size in enumerate(sizes) if size > minimum]
    heapify(heap)
    taken = np.zeros(devices, dtype=np.int64)
    for _ in missing:
        size, donor = heap[0]
        heapreplace(heap, (size + 1, donor))
        taken[donor] += 1
    moved = [
        rng.choice(np.flatnonzero(owner == donor), taken[donor], replace=False)
        for donor in np.flatnonzero(taken)
    ]
    if moved:
        owner[np.concatenate(moved)] = missing


def _raise_within_classes_(owner: Indices, labels: Labels, devices: int, scheme: ClassesPerDevice) -> None:
    """Give devices below the minimum samples of classes they may hold, from those that have most."""
    sizes = np.bincount(owner, minlength=devices)
    for device in np.flatnonzero(sizes < scheme.minimum):
        while sizes[device] < scheme.minimum:
            held = np.unique(labels[owner == device])
            spare = sizes[owner] > scheme.minimum
            if len(held) == scheme.classes:
                spare &= np.isin(labels, held)
            if not spare.any():
                raise ConfigError(
                    f"{scheme} over {devices} devices: no device can spare a sample of the classes of device "
                    f"{device} ({len(labels)} samples); use more classes a device or a lower minimum"
                )
            candidates = np.flatnonzero(spare)
            moved = candidates[np.argmax(sizes[owner[candidates]])]
            sizes[owner[moved]] -= 1
            owner[moved] = device
            sizes[device] += 1
