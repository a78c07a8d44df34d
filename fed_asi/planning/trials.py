"""What each form of one layer's input does to its weight gradient, on recorded inputs and gradients.

The layers' own code makes and restores every form, so the gradient that is judged is the one training will use.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from fed_asi import seeds
from fed_asi.errors import UnsupportedLayerError
from fed_asi.memory.storages import storage_bytes
from fed_asi.methods import Family, LayerInput, Method, Vanilla
from fed_asi.methods.base import kinds
from fed_asi.methods.bases import bases_of
from fed_asi.methods.family import default_families
from fed_asi.methods.ranks import spectra
from fed_asi.planning.gradient_errors import GradientErrors
from fed_asi.planning.profile import Candidate, LayerProfile
from fed_asi.planning.recording import Record, constant_input, grouped

NEAR = 1.25


def undominated(candidates: Iterable[Candidate]) -> tuple[Candidate, ...]:
    """Return the candidates that no other of the same kind and centring beats in bytes, by both counts, and in error.

    No plan is worse for it, as plans admit forms by kind and centring. All of the published grid is kept.
    """
    kept: list[Candidate] = []
    best: dict[tuple[str, bool], list[tuple[int, float]]] = {}
    for c in sorted(candidates, key=lambda c: (c.saved_bytes, c.error)):
        seen = best.setdefault((c.method.kind, c.method.centers), [])
        if c.epsilon is not None or all(c.error < e or c.published_bytes < b for b, e in seen):
            kept.append(c)
            if c.epsilon is None:
                seen.append((c.published_bytes, c.error))
    return tuple(kept)


def _nearly_kept(candidate: Candidate, kept: Sequence[Candidate]) -> bool:
    """Return whether a form was dropped although its error is within a quarter of the errors of those that beat it.

    Only then is its uncentred twin, whose error is about the same, worth a trial.
    """
    rivals = [
        c for c in kept if c.method.kind == candidate.method.kind and c.saved_bytes <= candidate.saved_bytes
    ]
    beaten = candidate not in rivals
    return beaten and candidate.error <= NEAR * min((c.error for c in rivals), default=candidate.error)


def check_supported(items: Sequence[Record], families: Sequence[Family]) -> None:
    """Raise UnsupportedLayerError, with reasons, for a method that no layer supports but should."""
    for family in families:
        if not family.method.must_fit or not items:
            continue
        reasons = {item.name: item.kind.unsupported(item.module, family.value()) for item in items}
        if all(reasons.values()):
            named = "; ".join(f"{name}: {reason}" for name, reason in list(reasons.items())[:3])
            more = f"; and {len(reasons) - 3} more" if len(reasons) > 3 else ""
            raise UnsupportedLayerError(f"no layer supports {family}: {named}{more}")


def counted_bytes(item: Record, method: Method, micro_batch: int) -> tuple[int, int]:
    """Return the bytes that a form of a layer's input keeps, saved and by the papers' count, from its shape alone.

    For ranks that depend on the data, these are upper bounds: the bytes at full ranks.
    """
    kind, shape = item.kind, (micro_batch, *item.kept_shape(method))
    saved = kind.saved_bytes(item.module, method, shape, item.x.dtype)
    if not kind.published:
        return saved, 0
    if method.needs_pool:
        shape = (*shape[:2], *[1] * (len(shape) - 2))
    canonical, size = method.reordered(kind.canonical_order), kind.size(item.module, shape)
    ranks = canonical.mode_ranks or size.dims
    return saved, canonical.published_bytes(size, ranks, item.x.dtype.itemsize)


Forms = Iterable[tuple[Method, float | None]]


@dataclass(frozen=True, slots=True)
class Study:
    """How the forms of a layer are tried: at which micro-batches, by which methods, and how many rank tuples of each.

    grid: whether the papers' grid of ranks is tried too. centered: True or False to try the forms of plans with that
    option; None to try every form with and without its mean.
    """

    micro_batches: tuple[int, ...]
    families: tuple[Family, ...] = field(default_factory=default_families)
    selection: str = "candidates"
    density: int = 10
    seed: int = 0
    grid: bool = False
    centered: bool | None = True

    def trial(self, item: Record, mean: Tensor) -> tuple[Trial, tuple[float, float, float]]:
        """Return a trial of the layer, ||dW||, and the energies ||dW_c||^2 and ||dbias||^2.

        mean: (C,), subtracted by centred forms.
        """
        errors = GradientErrors(item, mean, seeds.derive(self.seed, item.name))
        exact = errors.exact(centers=False)
        centered = exact - item.weight_gradient(constant_input(mean, item.canonical()))
        energy = float(centered.double().square().sum())
        bias = float(item.bias_gradient.double().square().sum()) if item.bias_parameters else 0.0
        energies = item.kind.channel_energies(item.module, centered).tolist()
        known = torch.tensor(
            [float(f"{e:.6g}") for e in energies], dtype=torch.float64
        )  # rounded as in a profile's file
        errors = replace(errors, channel_energies=known)
        return Trial(errors, energy), (float(exact.double().norm()), energy, bias)

    def layer(
        self, item: Record, position: int, head: bool, done: Callable[[], None] = lambda: None
    ) -> LayerProfile:
        """Return the profile of one layer. done: called after each micro-batch."""
        mean = item.mean()
        trial, (weight_norm, energy, bias_energy) = self.trial(item, mean)
        return LayerProfile(
            name=item.name,
            kind=type(item.module).__name__,
            input_shape=item.whole_shape,
            position=position,
            weight_parameters=item.weight().numel() + item.scale_parameters,
            channel_energies=tuple(trial.errors.channel_energies.tolist()),
            bias_parameters=item.bias_parameters,
            scale_parameters=item.scale_parameters,
            weight_norm=weight_norm,
            centered_energy=energy,
            bias_energy=bias_energy,
            mean=tuple(float(f"{m:.6g}") for m in mean.tolist()),
            candidates={size: self._candidates(trial, size, head, done) for size in self.micro_batches},
            head=head,
            element_bytes=item.weight().element_size(),
            bases=trial.errors.bases,
        )

    def _candidates(
        self, trial: Trial, micro_batch: int, head: bool, done: Callable[[], None]
    ) -> tuple[Candidate, ...]:
        tried = trial.runs(self.forms(trial.item, micro_batch, head), micro_batch)
        kept = undominated(tried)
        if self.centered:  # a plan takes an uncentred form only where the profile lacks its centred twin
            rest = [c.method.uncentred() for c in tried if c.method.centers and _nearly_kept(c, kept)]
            kept = undominated([*kept, *trial.runs(((method, None) for method in rest), micro_batch)])
        done()
        return kept

    def forms(
        self, item: Record, micro_batch: int, head: bool, values: Sequence[Tensor] | None = None
    ) -> Iterator[tuple[Method, float | None]]:
        """Yield the methods to try. An epsilon marks those of the published grid.

        values: one spectrum per mode, from which ranks are proposed; by default those of the recorded input.
        """

        def found() -> Sequence[Tensor]:
            whole = grouped(item.canonical(), min(micro_batch, len(item.x)))
            return spectra(whole) if values is None else values

        published, channels = self.selection == "published", item.kind.traits(item.module).channels
        seen = LayerInput(
            found, item.pooled, head, published, self.density, self.grid, self.centered, channels
        )
        for family in self._in_order(head):
            for method, epsilon in family.propose(seen):
                yield method.reordered(item.kind.own_order), epsilon

    def _in_order(self, head: bool) -> list[Family]:
        """Return the families, exact ones first; the classifier may always be kept whole."""
        wanted = list(self.families)
        if head and all(family.method is not Vanilla for family in wanted):
            wanted.append(Family(Vanilla))
        known = list(kinds())
        return sorted(wanted, key=lambda family: (not family.method.exact, known.index(family.kind)))


@dataclass(frozen=True, slots=True)
class Trial:
    """A layer with its recorded input, on which methods are tried."""

    errors: GradientErrors
    energy: float

    @property
    def item(self) -> Record:
        """The record of the layer."""
        return self.errors.item

    def run(self, method: Method, micro_batch: int, epsilon: float | None) -> Candidate | None:
        """Return the bytes and the error of a method; None if the layer does not support it."""
        if self.item.kind.unsupported(self.item.module, method) is not None:
            return None
        count = min(micro_batch, len(self.item.x))
        self._calibrate(method)
        measured = None if method.sized else self._measured_bytes(method, count)
        saved, published = measured or counted_bytes(self.item, method, micro_batch)
        error = float(f"{self.errors.of(method, count):.6g}")
        thin = self.item.kind.thin_gradient(self.item.module, method)
        return Candidate(method, saved, published, error, self.energy - error**2, epsilon, thin)

    def runs(self, forms: Forms, micro_batch: int) -> list[Candidate]:
        """Return the candidates for those of the forms that the layer supports."""
        found = (self.run(method, micro_batch, epsilon) for method, epsilon in forms)
        return [candidate for candidate in found if candidate is not None]

    def _calibrate(self, method: Method) -> None:
        """Fix the method's factors once, on the whole calibration batch."""
        bases = self.errors.bases
        if type(method).calibrated is not Method.calibrated and str(method) not in bases:
            factors = method.calibrated(self.errors.wanted(method.centers))
            if factors is not None:
                bases[str(method)] = bases_of(factors)

    def _measured_bytes(self, method: Method, micro_batch: int) -> tuple[int, int]:
        """Return the most bytes that any micro-batch of the calibration batch keeps, and by the papers' count."""
        saved = published = 0
        for part in grouped(self.item.canonical(), micro_batch):
            state = self.errors.state(method, None)
            kept = state.method.keep(part, state)
            saved = max(saved, storage_bytes(kept.tensors))
            published = max(published, kept.published_bytes if self.item.kind.published else 0)
        return saved, published
