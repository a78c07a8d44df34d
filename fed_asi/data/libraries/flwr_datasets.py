"""Partitioners of flwr-datasets as sharding schemes: "flwr-datasets:DirichletPartitioner"; arguments are keys."""

from __future__ import annotations

import inspect
from dataclasses import dataclass, field, fields, make_dataclass
from types import NoneType, UnionType
from typing import Any, ClassVar, Literal, Union, get_args, get_origin, get_type_hints

import numpy as np

from fed_asi import libraries
from fed_asi.data.arrays import said
from fed_asi.data.schemes import KIND, Columns, Indices, Labels
from fed_asi.errors import ConfigError, nearest
from fed_asi.texts import visible

LABEL = "label"  # the column of classes, as `partition_by` names it
_ROW = "_row"
_OURS = {"num_partitions", "seed"}  # set from the fleet and its seed
_PLAIN = {int, float, str, bool, NoneType}


@libraries.register("flwr-datasets", KIND, package="flwr-datasets")
def find(name: str) -> type[Any]:
    """Return a scheme: a frozen dataclass with the partitioner's arguments, except the devices and the seed, as fields.

    Raises ConfigError, naming the nearest ones, for what is not a partitioner.
    """
    from flwr_datasets import partitioner

    known = {
        key: value
        for key, value in vars(partitioner).items()
        if isinstance(value, type)
        and issubclass(value, partitioner.Partitioner)
        and not inspect.isabstract(value)
    }
    if name not in known:
        raise ConfigError(f"flwr-datasets has no partitioner {name!r}; {nearest(name, known)}")
    return _scheme(known[name])


@dataclass(frozen=True)
class _Partitioned:
    """Base of the schemes: shards are a partitioner's, from the labels and the data set's other columns."""

    partitioner: ClassVar[type[Any]]
    minimum: int = field(default=1, kw_only=True)

    def owners(self, labels: Labels, num_devices: int, rng: np.random.Generator) -> Indices:
        """Return the device of each sample, (N,), from the labels alone."""
        return self.owners_by(labels, {}, num_devices, rng)

    def owners_by(
        self, labels: Labels, columns: Columns, num_devices: int, rng: np.random.Generator
    ) -> Indices:
        """Return the device of each sample, (N,). Raises ConfigError for whatever the partitioner raises."""
        own = {"num_partitions": num_devices, "seed": int(rng.integers(2**31))}
        takes = inspect.signature(self.partitioner).parameters
        given = {one.name: getattr(self, one.name) for one in fields(self) if one.name in takes}
        name = self.partitioner.__name__
        try:
            made = self.partitioner(**given, **{key: value for key, value in own.items() if key in takes})
            made.dataset = _rows(labels, columns)
            shards = made.num_partitions
            parts = [made.load_partition(place)[_ROW][:] for place in range(shards)]
        except Exception as error:  # flwr-datasets raises many kinds of errors for unsuitable arguments
            raise ConfigError(f"{name} over {num_devices} devices: {visible(said(error))}") from error
        if shards != num_devices:
            raise ConfigError(
                f"{name} makes {shards} shards for {num_devices} devices: change one of the two"
            )
        return _owner_of_each([np.asarray(part, dtype=np.int64) for part in parts], len(labels), name)


def _rows(labels: Labels, columns: Columns) -> Any:
    """Return the samples in the form of flwr-datasets: their labels, other columns, and indices."""
    from datasets import Dataset

    others = {key: values.tolist() for key, values in columns.items()}
    return Dataset.from_dict({**others, LABEL: np.asarray(labels).tolist(), _ROW: list(range(len(labels)))})


def _owner_of_each(parts: list[Indices], samples: int, name: str) -> Indices:
    """Return the part of each sample, (N,). Raises ConfigError where a sample is in no part or in several."""
    times = np.bincount(np.concatenate(parts), minlength=samples)
    if (times != 1).any():
        raise ConfigError(
            f"{name} leaves {int((times == 0).sum())} of {samples} samples on no device and puts "
            f"{int((times > 1).sum())} on several; here each sample is on exactly one"
        )
    owner = np.empty(samples, dtype=np.int64)
    for device, part in enumerate(parts):
        owner[part] = device
    return owner


def _scheme(cls: type[Any]) -> type[Any]:
    """Return the scheme of a partitioner."""
    hints = get_type_hints(cls.__init__)
    made = []
    for one in inspect.signature(cls).parameters.values():
        if one.name not in _OURS:
            default = LABEL if one.name == "partition_by" else one.default
            how = field(kw_only=True) if default is one.empty else field(kw_only=True, default=default)
            made.append((one.name, _plain(hints.get(one.name, Any)), how))
    return make_dataclass(
        cls.__name__, made, bases=(_Partitioned,), namespace={"partitioner": cls}, frozen=True
    )


def _plain(hint: Any) -> Any:
    """Return the part of an annotation that a fleet file can express; Any if there is none."""
    if get_origin(hint) in {Union, UnionType}:
        kept = [one for one in get_args(hint) if _is_plain(one)]
        return Union[tuple(kept)] if kept else Any  # noqa: UP007  made while it runs
    return hint if _is_plain(hint) else Any


def _is_plain(hint: Any) -> bool:
    if get_origin(hint) is list:
        return all(_is_plain(one) for one in get_args(hint))
    return hint in _PLAIN or get_origin(hint) is Literal
