"""What a device tries once a plan is over its budget: the policies that `method.over_budget` names.

A policy is a pure function from what a device has and what there is to choose from, to the next tries, in order.
They do not include what has just failed: the device's own resources, all layers, the method's own grid.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from fed_asi import own_code
from fed_asi.errors import ConfigError, nearest
from fed_asi.fleets.resources import Resources


@dataclass(frozen=True, slots=True)
class Offer:
    """What there is to plan from.

    body_layers: how many layers the profile has besides the classifier. micro_batches: those it knows,
    ascending. grid: how the method chooses ranks, "exact" or "published".
    """

    body_layers: int
    micro_batches: tuple[int, ...]
    grid: str


@dataclass(frozen=True, slots=True)
class Try:
    """What to plan for next. layers: only this many of the last body layers; None: those that the method trains."""

    resources: Resources
    grid: str
    layers: int | None = None


FORM = "def policy(resources, offer) -> list of fed_asi.fleets.over_budget.Try"
Policy = Callable[[Resources, Offer], Iterable[Try]]


@dataclass(frozen=True, slots=True)
class _Registered:
    policy: Policy
    smaller: bool


_POLICIES: dict[str, _Registered] = {}


def register(name: str, policy: Policy, *, smaller: bool = False) -> None:
    """Let fleet files name a policy; a name already taken is replaced.

    smaller: whether it may go below a pinned micro-batch, so that the profile must know smaller ones too.
    """
    _POLICIES[name] = _Registered(policy, smaller)


def names() -> list[str]:
    """Return the names a fleet file may use."""
    return sorted(_POLICIES)


def tries(name: str, resources: Resources, offer: Offer) -> Sequence[Try]:
    """Return what a device tries next under the policy `name`, in order. Raises ConfigError for an unknown one."""
    return tuple(_find(name).policy(resources, offer))


def goes_smaller(name: str) -> bool:
    """Return whether the policy may go below a pinned micro-batch. Raises ConfigError for an unknown one."""
    return _find(name).smaller


def check_known(name: str) -> None:
    """Raise ConfigError unless there is a policy of that name."""
    _find(name)


def _find(name: str) -> _Registered:
    if name in _POLICIES:
        return _POLICIES[name]
    if not own_code.is_own(name):
        raise ConfigError(f"unknown over-budget policy {name!r}; {nearest(name, names())}")
    policy: Policy = own_code.load(name)
    own_code.check_call(name, policy, FORM, None, None)
    return _Registered(policy, smaller=True)  # assume that it does: a profile may know more than is needed


def _exclude(_resources: Resources, _offer: Offer) -> Iterable[Try]:
    """Nothing else is tried: the device is left out."""
    return ()


def _fewer_layers(resources: Resources, offer: Offer) -> Iterable[Try]:
    """One layer fewer each time, down to the classifier alone."""
    return (Try(resources, offer.grid, count) for count in range(offer.body_layers - 1, -1, -1))


def _smaller_micro_batch(resources: Resources, offer: Offer) -> Iterable[Try]:
    """The next smaller micro-batch that the profile knows, down to its smallest."""
    largest = resources.micro_batch or resources.batch_size
    smaller = [size for size in reversed(offer.micro_batches) if size < largest]
    return (Try(replace(resources, micro_batch=size), offer.grid) for size in smaller)


def _lower_ranks(resources: Resources, _offer: Offer) -> Iterable[Try]:
    """All ranks that the profile knows, within 7/8, 6/8, ... 1/8 of the budget."""
    if resources.budget_bytes is None:
        return ()
    parts = dict.fromkeys(resources.budget_bytes * eighths // 8 for eighths in range(7, 0, -1))
    return (Try(replace(resources, budget_bytes=part), "exact") for part in parts if part > 0)


register("exclude", _exclude)
register("fewer-layers", _fewer_layers)
register("smaller-micro-batch", _smaller_micro_batch, smaller=True)
register("lower-ranks", _lower_ranks)
