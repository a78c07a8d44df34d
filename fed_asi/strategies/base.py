"""What a strategy is: a pure function from a round, its updates and a state to new weights and a new state.

    combine(round, state) -> (tensors, state, notes)

The state is named tensors, empty before the first round. It is checkpointed with the weights, so that a killed run
resumes with the same bits. A strategy works on each tensor separately, over the devices that trained it; a tensor that
no device trained does not change, and neither does its part of the state. The same holds for places of a tensor that
some devices trained in part (places.py). Sums are float64, in the order of partition_id.

`at_device` says what it adds to a device's training (local.py), `sent` which tensors travel besides the weights.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields
from inspect import isabstract
from typing import ClassVar, TypeVar

import torch
from torch import Tensor

from fed_asi import own_code
from fed_asi.errors import ConfigError, UpdateError, nearest
from fed_asi.machine import cpus_here
from fed_asi.strategies.aggregate import LARGEST, Update, Weights, check_tensor
from fed_asi.strategies.local import AtDevice, Local
from fed_asi.strategies.places import Places, base_of, places_of

State = Mapping[str, Tensor]
LARGE = 1 << 20  # numbers of all tensors, from which their means are computed by several threads


@dataclass(frozen=True, slots=True)
class Round:
    """A round as a strategy sees it.

    tensors: the global ones before it, by name. updates: checked, in order of partition_id. devices: of the fleet.
    momentum: of the devices' SGD.
    """

    round: int
    tensors: Weights
    updates: tuple[Update, ...]
    devices: int
    momentum: float = 0.0

    @classmethod
    def of(cls, round: int, tensors: Weights, updates: list[Update], devices: int, momentum: float) -> Round:
        """Return the round with its updates in order. Raises UpdateError where a device appears twice."""
        ordered = sorted(updates, key=lambda update: update.partition_id)
        ids = [update.partition_id for update in ordered]
        if len(set(ids)) < len(ids):
            raise UpdateError(f"a device handed in two updates: {ids}")
        return cls(round, tensors, tuple(ordered), devices, momentum)

    def places(self, name: str) -> Iterator[Places]:
        """Yield the groups of a tensor's places that the same devices trained; none if no device trained it."""
        yield from places_of(name, self.updates, self.tensors[name])

    def combined(self, made: Callable[[Places, Tensor], Tensor]) -> dict[str, Tensor]:
        """Return new tensors, each made of its places; what no device trained does not change.

        made: returns the new numbers of some places, from the places and the global numbers there; float64.
        """
        tensors = {}
        for name, tensor in self.tensors.items():
            tensors[name] = tensor.clone()
            for places in self.places(name):
                values = rounded(made(places, places.of(tensor).to(torch.float64)), tensor)
                tensors[name] = places.put(tensors[name], values)
        return tensors

    def means(self) -> dict[str, Tensor]:
        """Return the weighted means: sum_k w_k * tensor_k / sum_k w_k over the devices that trained a tensor or place.

        w_k = num_examples * factor. What no device trained, or only with weight 0, does not change.
        Exact up to one rounding to the tensor's type after a float64 sum; independent of the order of updates.
        """
        names = list(self.tensors)
        large = sum(tensor.numel() for tensor in self.tensors.values()) > LARGE
        with ThreadPoolExecutor(cpus_here() if large else 1, "mean", torch.set_num_threads, (1,)) as pool:
            return dict(zip(names, (pool.map if large else map)(self._mean, names), strict=True))

    def _mean(self, name: str) -> Tensor:
        tensor, found = self.tensors[name], None
        for places in self.places(name):
            values = torch.empty(places.said[0][2].shape, dtype=tensor.dtype)
            flat = values.view(-1)
            for place, part in places.mean_by_parts():
                flat[place] = rounded(part, tensor)
            found = places.put(tensor if found is None else found, values)
        return tensor.clone() if found is None else found


@dataclass(frozen=True, slots=True)
class Combined:
    """The result of a round: all global tensors, the new state, and notes for the report."""

    tensors: dict[str, Tensor]
    state: State
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Conditions:
    """Other settings of the fleet file that a strategy may depend on.

    cohort: devices asked in a round. momentum, update: of [train]. weighted: whether updates are weighted by the
    gradient they captured.
    """

    cohort: int
    momentum: float = 0.0
    update: str = "step"
    weighted: bool = False


@dataclass(frozen=True, slots=True)
class Strategy(ABC):
    """Base of every strategy; its fields are its keys under [aggregate]."""

    name: ClassVar[str] = ""
    holds: ClassVar[frozenset[str]] = (
        frozenset()
    )  # copies of the trained tensors that a device holds while it trains
    extras: ClassVar[tuple[str, ...]] = ()  # kinds of tensors that travel with the weights, both ways
    weighs: ClassVar[bool] = True  # whether it uses the weights of updates
    in_steps: ClassVar[bool] = False  # whether a device's steps differ from plain SGD
    counts_steps: ClassVar[bool] = False  # whether it uses the number of steps that a device reports
    when_lost: ClassVar[str] = ""  # the consequence if a device lost what it kept

    def problems(self, run: Conditions) -> Iterator[str]:
        """Yield the settings of a fleet file that do not go with this strategy, each line beginning with the key."""
        if run.weighted and not self.weighs:
            yield (
                f'aggregate.strategy: "{self.name}" gives every update the same weight; '
                'leave out weights = "captured" and min_fidelity'
            )
        if self.in_steps and run.update not in {"step", "micro-batch"}:
            yield (
                f'train.update: "{run.update}" updates each layer by itself, but "{self.name}" corrects whole steps; '
                'use "step" or "micro-batch"'
            )

    @abstractmethod
    def combine(self, given: Round, state: State) -> Combined:
        """Return a round's new weights and state. Pure: neither argument is changed."""

    def sent(self, state: State, tensors: Weights) -> dict[str, Tensor]:
        """Return the tensors that every device gets besides the weights, by `extra_name`."""
        return {}

    def at_device(self, given: AtDevice) -> Local:
        """Return what a device does in a round on top of plain local SGD."""
        return Local(given)

    def check(self, update: Update, tensors: Weights) -> None:
        """Raise UpdateError, with the reason, unless the strategy's own tensors in an update can be used."""
        wanted = {extra_name(kind, name): name for kind in self.extras for name in update.tensors}
        for extra in sorted(wanted.keys() - update.extra.keys()):
            raise UpdateError(f"missing tensor {extra}")
        for extra in sorted(update.extra):
            if extra not in wanted:
                raise UpdateError(f"surplus tensor {extra}")
            name = wanted[extra]
            check_tensor(
                extra, update.extra[extra], base_of(update, name, tensors[name]).to(tensors[name].dtype)
            )


def extra_name(kind: str, name: str) -> str:
    """Return the name of a tensor of the strategy. It has two dots in a row, which no tensor's own name has."""
    return f"{kind}..{name}"


def rounded(values: Tensor, like: Tensor) -> Tensor:
    """Return float64 values in the type of `like`; values beyond its range become its largest number."""
    most = LARGEST if like.dtype == torch.float64 else torch.finfo(like.dtype).max
    return torch.nan_to_num(values, nan=0.0, posinf=most, neginf=-most).clamp(-most, most).to(like.dtype)


FORM = (
    'class Mine(fed_asi.strategies.Strategy): a frozen dataclass with name: ClassVar[str] = "mine" and '
    "def combine(self, given, state) -> Combined"
)
_Class = TypeVar("_Class", bound=type[Strategy])
_STRATEGIES: dict[str, type[Strategy]] = {}


def register(cls: _Class) -> _Class:
    """Return the class, now registered as the strategy of its name in fleet files.

    Raises ConfigError for one without a name, or without a `combine`.
    """
    if not cls.name or isabstract(cls):
        raise ConfigError(
            f"strategy {cls.__name__}: it must be a Strategy with a name and a combine(round, state)"
        )
    _STRATEGIES[cls.name] = cls
    return cls


def names() -> list[str]:
    """Return the names a fleet file may use."""
    return sorted(_STRATEGIES)


def find(name: str) -> type[Strategy]:
    """Return the strategy of that name. Raises ConfigError, naming the nearest ones, for an unknown name."""
    if name in _STRATEGIES:
        return _STRATEGIES[name]
    if not own_code.is_own(name):
        raise ConfigError(f"unknown strategy {name!r}; {nearest(name, names())}")
    found: type[Strategy] = own_code.load(name)
    own_code.check_class(name, found, Strategy, FORM)
    if not found.name or isabstract(found):
        raise ConfigError(f"{own_code.shown_name(name)} lacks its name or combine; write it as {FORM}")
    own_code.check_call(f"{name}.combine", found.combine, FORM, None, None, {})
    return found


def owners_of(key: str) -> list[str]:
    """Return the strategies that have a setting of that name."""
    return [name for name in names() if key in {one.name for one in fields(_STRATEGIES[name])}]
