"""The sharding schemes of the federated literature: each says, by its settings, who owns every sample.

They are those of flwr-datasets, but they always end: where a draw leaves a device below the minimum, samples
move to it instead of drawing again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from fed_asi.errors import ConfigError, nearest

Indices = NDArray[np.int64]
Labels = NDArray[np.integer]
Columns = Mapping[str, NDArray[Any]]  # (N,) each: what a data set says of its samples beside image and label
KIND = "sharding scheme"


class Scheme(Protocol):
    """A frozen dataclass of a scheme's settings.

    A setting is a key of a fleet file's [sharding], by its field's name or by the field's metadata "key".
    A scheme that goes by more than labels has a method owners_by(labels, columns, num_devices, rng) too, which is then
    asked instead of `owners`.
    """

    @property
    def minimum(self) -> int:
        """Return how many samples every device has at least."""

    def owners(self, labels: Labels, num_devices: int, rng: np.random.Generator) -> Indices:
        """Return the device (0 to num_devices - 1) of each sample, (N,).

        labels: (N,) class of each sample. rng: the only source of randomness. There are samples enough for
        every device's minimum; devices below it get theirs afterwards, from those that have most.
        Raises ConfigError where the settings do not suit the labels or the number of devices.
        """


@dataclass(frozen=True, slots=True)
class Iid:
    """Shards drawn uniformly, their sizes equal to within one sample."""

    minimum: int = 1

    def owners(self, labels: Labels, num_devices: int, rng: np.random.Generator) -> Indices:
        """Return the device of each sample, (N,)."""
        return rng.permutation(np.arange(len(labels), dtype=np.int64) % num_devices)


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

    def owners(self, labels: Labels, num_devices: int, rng: np.random.Generator) -> Indices:
        """Return the device of each sample, (N,). Raises ConfigError unless alpha is above 0 and finite."""
        if not 0 < self.alpha < float("inf"):
            raise ConfigError(f"alpha {self.alpha} must be above 0 and finite")
        owner = np.empty(len(labels), dtype=np.int64)
        sizes = np.zeros(num_devices, dtype=np.int64)
        for label in np.unique(labels):
            members = rng.permutation(np.flatnonzero(labels == label))
            even = len(labels) / num_devices
            closed = sizes > even if self.balanced else np.zeros(num_devices, dtype=bool)
            shares = _dirichlet_shares(self.alpha, closed, rng)
            ends = (np.cumsum(shares) * len(members)).astype(np.int64)
            ends[np.flatnonzero(~closed)[-1] :] = len(members)  # rounding must not lose the last samples
            owner[members] = np.searchsorted(ends, np.arange(len(members)), side="right")
            sizes += np.bincount(owner[members], minlength=num_devices)
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


@dataclass(frozen=True, slots=True)
class ClassesPerDevice:
    """Each device holds samples of at most `classes` classes; a class is cut evenly among its holders.

    The first class of device i is class i, i + devices, ... (modulo the number of classes), the others are
    drawn, so every class has a holder. A device below the minimum gets samples of classes it may hold.
    Source: Li et al., "Federated Learning on Non-IID Data Silos", 2021 (arXiv 2102.02079).
    """

    classes: int = field(metadata={"key": "classes_per_device"})
    minimum: int = 1

    def owners(self, labels: Labels, num_devices: int, rng: np.random.Generator) -> Indices:
        """Return the device of each sample, (N,). Raises ConfigError where a class would be on no device."""
        known, codes = np.unique(labels, return_inverse=True)
        self._check(len(known), len(labels), num_devices)
        owner = np.empty(len(labels), dtype=np.int64)
        for code, devices_of in enumerate(self._holders(len(known), num_devices, rng)):
            members = rng.permutation(np.flatnonzero(codes == code))
            # The remainder starts anywhere, else the first devices would get it of every class.
            turn = (np.arange(len(members)) + rng.integers(len(devices_of))) % len(devices_of)
            owner[members] = np.asarray(devices_of)[turn]
        self._raise_to_minimum_(owner, labels, num_devices)
        return owner

    def _check(self, known: int, samples: int, devices: int) -> None:
        if not 1 <= self.classes <= known:
            raise ConfigError(f"{self} over {devices} devices: the {samples} samples have {known} classes")
        if devices * self.classes < known:
            raise ConfigError(
                f"{self} over {devices} devices leaves {known - devices * self.classes} classes "
                f"of {known} ({samples} samples) on no device; use more devices or more classes a device"
            )

    def _holders(self, known: int, devices: int, rng: np.random.Generator) -> list[list[int]]:
        """Return the devices that hold each class."""
        holders: list[list[int]] = [[] for _ in range(known)]
        for device in range(devices):
            first = np.arange(device % known, known, devices)[: self.classes]
            others = np.setdiff1d(np.arange(known), first)
            for code in (*first, *rng.choice(others, self.classes - len(first), replace=False)):
                holders[code].append(device)
        return holders

    def _raise_to_minimum_(self, owner: Indices, labels: Labels, devices: int) -> None:
        """Give devices below the minimum samples of classes they may hold, from those that have most."""
        sizes = np.bincount(owner, minlength=devices)
        for device in np.flatnonzero(sizes < self.minimum):
            while sizes[device] < self.minimum:
                held = np.unique(labels[owner == device])
                spare = sizes[owner] > self.minimum
                if len(held) == self.classes:
                    spare &= np.isin(labels, held)
                if not spare.any():
                    raise ConfigError(
                        f"{self} over {devices} devices: no device can spare a sample of the classes of device "
                        f"{device} ({len(labels)} samples); use more classes a device or a lower minimum"
                    )
                candidates = np.flatnonzero(spare)
                moved = candidates[np.argmax(sizes[owner[candidates]])]
                sizes[owner[moved]] -= 1
                owner[moved] = device
                sizes[device] += 1


@dataclass(frozen=True, slots=True)
class ByColumn:
    """The natural shards: each device holds all samples of its values of a column, such as those of one writer.

    With as many values as devices, device i has the i-th of them, sorted; more are shuffled and dealt out in turns.
    """

    column: str
    minimum: int = 1

    def owners(self, labels: Labels, num_devices: int, rng: np.random.Generator) -> Indices:
        """Raise ConfigError: labels alone say nothing of columns."""
        return self.owners_by(labels, {}, num_devices, rng)

    def owners_by(
        self, _labels: Labels, columns: Columns, num_devices: int, rng: np.random.Generator
    ) -> Indices:
        """Return the device of each sample, (N,).

        Raises ConfigError where there is no such column, or it has too few values or samples of one.
        """
        if self.column not in columns:
            hint = nearest(self.column, columns) if columns else "they have only labels"
            raise ConfigError(f"column: the data have no column {self.column!r}; {hint}")
        values, codes = np.unique(columns[self.column], return_inverse=True)
        if len(values) < num_devices:
            raise ConfigError(
                f"column: {self.column!r} has {len(values)} values in {len(codes)} samples, for {num_devices} devices; "
                "use fewer devices"
            )
        turns = np.arange(len(values), dtype=np.int64)
        if len(values) > num_devices:
            turns = rng.permutation(turns) % num_devices
        owner = turns[codes.reshape(-1)]
        self._check(owner, num_devices)
        return owner

    def _check(self, owner: Indices, num_devices: int) -> None:
        sizes = np.bincount(owner, minlength=num_devices)
        if sizes.min() < self.minimum:
            raise ConfigError(
                f"minimum: {self.minimum} samples a device, but by {self.column!r} device {int(sizes.argmin())} has "
                f"{int(sizes.min())}; use a lower minimum or fewer devices"
            )
