"""Which device holds which samples: every sample on exactly one device, and no device below its minimum.

Who owns a sample is a scheme's to say; schemes have names, and further ones can be registered.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields, is_dataclass
from heapq import heapify, heapreplace

import numpy as np

from fed_asi import libraries, own_code, seeds
from fed_asi.data.schemes import (
    KIND,
    ByColumn,
    ClassesPerDevice,
    Columns,
    Dirichlet,
    Iid,
    Indices,
    Labels,
    Scheme,
)
from fed_asi.errors import ConfigError, nearest

__all__ = [
    "ByColumn",
    "ClassesPerDevice",
    "Dirichlet",
    "Iid",
    "Scheme",
    "Shards",
    "find",
    "make",
    "names",
    "register",
]

FORM = "a frozen dataclass with a field minimum: int and def owners(self, labels, num_devices, rng)"
_SCHEMES: dict[str, type[Scheme]] = {}


def register(name: str, scheme: type[Scheme]) -> None:
    """Let fleet files name a scheme; a name that is taken is from now on this scheme's.

    scheme: a frozen dataclass with the method `owners` and at least the field `minimum`; its other fields are
    its keys in the fleet file.
    Raises ConfigError for a class that is none.
    """
    if not _is_scheme(scheme):
        raise ConfigError(
            f"sharding scheme {name!r}: {scheme.__name__} must be a dataclass with a field minimum and a "
            "method owners(labels, num_devices, rng)"
        )
    _SCHEMES[name] = scheme


def _is_scheme(found: type[object]) -> bool:
    known: set[str] = {one.name for one in fields(found)} if is_dataclass(found) else set()
    return "minimum" in known and callable(getattr(found, "owners", None))


def names() -> list[str]:
    """Return the names a fleet file may use."""
    return sorted(_SCHEMES)


def find(name: str) -> type[Scheme]:
    """Return the scheme of that name. Raises ConfigError, with the nearest ones, for an unknown name."""
    if name in _SCHEMES:
        return _SCHEMES[name]
    if libraries.is_library(name):
        of_library: type[Scheme] = libraries.find(KIND, name)
        return of_library
    if not own_code.is_own(name):
        raise ConfigError(f"unknown sharding scheme {name!r}; {nearest(name, names())}")
    found: type[Scheme] = own_code.load(name)
    own_code.check_class(name, found, object, FORM)
    if not _is_scheme(found):
        raise ConfigError(f"{own_code.shown_name(name)} is not such a dataclass; write it as {FORM}")
    own_code.check_call(f"{name}.owners", found.owners, FORM, None, np.zeros(0), 1, None)
    return found


register("iid", Iid)
register("dirichlet", Dirichlet)
register("classes", ClassesPerDevice)
register("column", ByColumn)


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


def make(
    labels: Labels, num_devices: int, scheme: Scheme, seed: int, columns: Columns | None = None
) -> Shards:
    """Return the shards of `num_devices` devices over samples 0..len(labels) - 1, a pure function of `seed`.

    labels: (N,) class of each sample. columns: what else is known of each, (N,) by name.
    Raises ConfigError that names the scheme, the devices and the samples where no such shards exist.
    """
    labels = np.asarray(labels)
    _check(labels, num_devices, scheme)
    rng = seeds.rng(seed, "shards")
    by_columns = getattr(scheme, "owners_by", None)
    if by_columns is None:
        found = scheme.owners(labels, num_devices, rng)
    else:
        found = by_columns(labels, columns or {}, num_devices, rng)
    owner = _of_every_sample(found, len(labels), num_devices, scheme)
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
    needed = max(devices * scheme.minimum, 1)
    if needed > len(labels):
        problems.append(
            f"{scheme} over {devices} devices needs {needed} samples, there are {len(labels)}; "
            "use fewer devices, a lower minimum, or more data"
        )
    if problems:
        raise ConfigError(problems)


def _of_every_sample(found: Indices, samples: int, devices: int, scheme: Scheme) -> Indices:
    """Return a copy of what a scheme said, once it is known to be one device for each sample."""
    owner = np.asarray(found)
    whole = owner.shape == (samples,) and np.issubdtype(owner.dtype, np.integer)
    if not whole or owner.min() < 0 or owner.max() >= devices:
        raise ConfigError(
            f"{scheme} over {devices} devices: owners must be a device from 0 to {devices - 1} for each of "
            f"{samples} samples, not {owner.dtype} {owner.shape}"
            + (f" from {owner.min()} to {owner.max()}" if whole else "")
        )
    return np.array(owner, dtype=np.int64)


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
