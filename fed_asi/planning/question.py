"""A planning question: the options of `plan`, checked against a profile, in the form that the search needs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass, replace
from functools import lru_cache

from fed_asi.errors import ConfigError, ProfileError, nearest
from fed_asi.methods import BiasOnly, Frozen, Method, Vanilla
from fed_asi.methods.base import class_of
from fed_asi.methods.family import Asked, families
from fed_asi.planning.profile import Candidate, LayerProfile, Profile

OBJECTIVES = ("captured", "perplexity", "relative-error")


COUNTS = ("saved", "published", "training")


UPDATES = ("step", "micro-batch", "layer")


SELECTIONS = ("exact", "published")


DEFAULT_OBJECTIVE = "captured"


@dataclass(frozen=True, slots=True)
class Options:
    """The options of `plan`, documented there."""

    methods: Asked | Sequence[Asked] | None = None
    objective: str | None = None
    layers: str | Sequence[str] | None = None
    count: str = "saved"
    selection: str = "exact"
    centered: bool | None = True
    update: str = "step"
    momentum: bool = False
    copies: int = 0


@dataclass(frozen=True, slots=True)
class Question:
    """A checked planning question: a profile, and the arguments of `plan` in the form that the search needs."""

    profile: Profile
    forced: frozenset[str]
    allowed: frozenset[str]
    methods: frozenset[str]
    objective: str
    count: str
    selection: str
    centered: bool | None
    accumulators: bool
    momentum: bool
    at_once: bool = False
    strategy_copies: int = 0
    largest_gradient: int | None = None

    def capped(self) -> Iterator[Question]:
        """Yield this question once, or once for each possible largest gradient if that counts.

        If gradients are applied and freed layer by layer, a plan's bytes include only the largest one. That is no sum
        over layers, but within one of these questions it is a constant, part of the floor.
        """
        if not (self.at_once and self.count == "training"):
            yield self
            return
        every = (
            (one, c) for one in self.profile.layers for b in one.candidates for c in self.candidates(one, b)
        )
        for size in sorted({self.gradient_bytes(layer, c) for layer, c in every}):
            yield replace(self, largest_gradient=size)

    def can_be_met(self, micro_batch: int) -> bool:
        """Return whether every layer has a form within the question's largest gradient."""
        return self.largest_gradient is None or all(
            self.candidates(one, micro_batch) for one in self.profile.layers
        )

    def gradient_bytes(self, layer: LayerProfile, candidate: Candidate) -> int:
        """Return the bytes of a layer's gradients that are whole at one time with updates layer by layer."""
        if not candidate.method.trains_weight:
            return layer.element_bytes * layer.bias_parameters * candidate.method.trains_bias
        if candidate.thin:
            scale = layer.scale_parameters if candidate.method.trains_scale else 0
            return layer.element_bytes * (scale + layer.bias_parameters)
        return layer.element_bytes * trained_parameters(layer, candidate.method)

    def candidates(self, layer: LayerProfile, micro_batch: int) -> list[Candidate]:
        """Return every form that this layer may take; the first has the fewest bytes."""
        found: list[Candidate] = []
        if layer.name not in self.forced and not layer.head:
            found.append(Candidate(Frozen(), 0, 0, layer.weight_norm, 0.0))
        if layer.name in self.allowed or layer.head:
            if BiasOnly.kind in self.methods and layer.bias_parameters:
                found.append(Candidate(BiasOnly(), 0, 0, layer.weight_norm, 0.0))
            forms = {c.method for c in layer.candidates[micro_batch] if c.epsilon is None}
            found += [c for c in layer.candidates[micro_batch] if self._admits(layer, c, forms)]
        most = self.largest_gradient
        return found if most is None else [c for c in found if self.gradient_bytes(layer, c) <= most]

    def _admits(self, layer: LayerProfile, candidate: Candidate, forms: Set[Method]) -> bool:
        method = candidate.method
        if self.selection == "published":
            return method == Vanilla() if layer.head else candidate.epsilon is not None
        if candidate.epsilon is not None and any(form.kind == method.kind for form in forms):
            return False  # the papers' grid is used only where a profile has nothing else
        if self.centered is False and method.centers:
            return False
        if self.centered and _centred(method) != method and _centred(method) in forms:
            return False
        # The classifier may always be kept whole: a plan must be able to train it.
        return method.kind in self.methods or (layer.head and method.keeps_whole)

    def value(self, layer: LayerProfile, candidate: Candidate) -> float:
        """Return the value of this form: its layer's share of the objective."""
        if self.objective == "perplexity":
            return -candidate.error
        if self.objective == "relative-error":
            return -candidate.error / layer.weight_norm if layer.weight_norm else 0.0
        return candidate.captured + (layer.bias_energy if candidate.method.trains_bias else 0.0)

    def bytes(self, layer: LayerProfile, candidate: Candidate) -> int:
        """Return the bytes of this form, as `count` counts them."""
        if self.count == "published":
            return candidate.published_bytes
        if self.count == "saved":
            return candidate.saved_bytes
        copies = int(self.accumulators) + int(self.momentum)
        own = candidate.saved_bytes + _trained_bytes(layer, candidate) * copies
        return own + self.strategy_bytes(layer, candidate)

    def strategy_bytes(self, layer: LayerProfile, candidate: Candidate) -> int:
        """Return how many of `bytes` are copies of trained weights for the strategy and the codec."""
        return _trained_bytes(layer, candidate) * self.strategy_copies if self.count == "training" else 0

    def smallest(self, layer: LayerProfile, micro_batch: int) -> Candidate:
        """Return the form of a layer with the fewest bytes."""
        return min(self.candidates(layer, micro_batch), key=lambda candidate: self.bytes(layer, candidate))

    def floor(self, micro_batch: int, first: int) -> int:
        """Return the bytes that no form avoids when layer `first` is the first trained one."""
        return (
            0
            if self.count == "published"
            else self.profile.floors[micro_batch][first] + (self.largest_gradient or 0)
        )


def trained_parameters(layer: LayerProfile, method: Method) -> int:
    """Return how many parameters of a layer, and of the batch norm after it, train under a method."""
    bias = layer.bias_parameters if method.trains_bias else 0
    return bias + method.trained_parameters(layer.weight_parameters, layer.scale_parameters, len(layer.mean))


def _trained_bytes(layer: LayerProfile, candidate: Candidate) -> int:
    """Return the bytes of what a layer trains in this form."""
    return layer.element_bytes * trained_parameters(layer, candidate.method)


@lru_cache(maxsize=4096)
def _centred(method: Method) -> Method:
    """Return the same form with its input centred first; remembered, as it is called very often."""
    return method.centred()


def ask(profile: Profile, options: Options) -> Question:
    """Return the options, checked against the profile. Raises ConfigError with everything that is wrong."""
    methods, objective, selection = options.methods, options.objective, options.selection
    objective = objective or ("perplexity" if selection == "published" else DEFAULT_OBJECTIVE)
    choices: list[tuple[str, str, tuple[str, ...]]]
    choices = [("objective", objective, OBJECTIVES), ("count", options.count, COUNTS)]
    choices += [("selection", selection, SELECTIONS), ("update", options.update, UPDATES)]
    unknown = [
        f"{what} {value!r} is not known; {nearest(value, known)}"
        for what, value, known in choices
        if value not in known
    ]
    kinds: frozenset[str] = frozenset()
    try:
        kinds = frozenset(family.kind for family in families(methods))
    except ConfigError as error:
        unknown += error.problems
    if unknown:
        raise ConfigError(unknown)
    _check_tried(profile, options, kinds)
    if methods is not None:
        _check_some_form(profile, kinds)
    forced = _forced(profile, options.layers)
    allowed = forced or frozenset(layer.name for layer in profile.layers)
    return Question(
        profile,
        forced,
        allowed,
        kinds,
        objective,
        options.count,
        selection,
        options.centered,
        options.update == "step",
        options.momentum,
        options.update == "layer",
        options.copies,
    )


def _check_tried(profile: Profile, options: Options, kinds: Set[str]) -> None:
    """Raise ConfigError if a plan may take forms that the profile did not try."""
    if options.selection == "published" and not profile.grid:
        raise ConfigError(
            "this profile holds none of the papers' ranks; make it by profile(..., grid=True) for plans of "
            'selection "published"'
        )
    tried = any(not class_of(kind).exact and class_of(kind).trains_weight for kind in kinds)
    if options.selection == "exact" and tried and profile.centered not in (None, options.centered):
        raise ConfigError(
            f"this profile was made for plans with centered={profile.centered}, not {options.centered}; "
            "make it by profile(..., centered=None) for plans of any kind"
        )


def _check_some_form(profile: Profile, kinds: frozenset[str]) -> None:
    """Raise ConfigError if no layer but the head has any form of the given kinds."""
    body = [layer for layer in profile.layers if not layer.head]
    held = {c.method.kind for layer in body for found in layer.candidates.values() for c in found}
    if any(layer.bias_parameters for layer in body):
        held.add(BiasOnly.kind)
    if body and not held & kinds:
        asked = ", ".join(sorted(kinds))
        raise ConfigError(
            f"no layer of this profile can be kept as {asked}, only as {', '.join(sorted(held))}; "
            f"calibrate again with methods that name {asked}, which also says of layers why they cannot"
        )


def _forced(profile: Profile, layers: str | Sequence[str] | None) -> frozenset[str]:
    """Return the layers that must be trained; empty if any subset may be."""
    if layers is None:
        return frozenset()
    in_order = sorted(profile.layers, key=lambda layer: layer.position)
    body = [layer.name for layer in in_order if not layer.head]
    if isinstance(layers, str):
        word, _, number = layers.partition(" ")
        if word == "all":
            return frozenset(body)
        if word != "last" or not number.isdigit() or not 0 <= int(number) <= len(body):
            raise ConfigError(
                f'layers {layers!r} is not understood; write "last 4" (at most {len(body)}), "all" or names'
            )
        return frozenset(body[len(body) - int(number) :] or [profile.layers[-1].name])
    names = [layer.name for layer in profile.layers]
    missing = [name for name in layers if name not in names]
    if missing:
        raise ConfigError(
            [f"layer {name!r} is not in the profile; {nearest(name, names)}" for name in missing]
        )
    return frozenset(layers)


def admitted_micro_batches(profile: Profile, pinned: int | None) -> tuple[int, ...]:
    """Return the micro-batches that a plan may have. Raises ProfileError if a pinned one has no candidates."""
    if pinned is None:
        return profile.micro_batches
    if pinned not in profile.floors:
        known = ", ".join(str(b) for b in profile.micro_batches)
        raise ProfileError(
            f"the profile has no candidates for micro-batch {pinned}, only for {known}. Calibrate again."
        )
    return (pinned,)
