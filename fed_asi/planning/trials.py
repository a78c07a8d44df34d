"""What each form of keeping one layer's input does to its weight gradient, on recorded inputs and gradients.

The layers' own code makes and restores every form, so the gradient judged is the one training will see.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from fed_asi import layers as layer_kinds
from fed_asi import seeds
from fed_asi.errors import UnsupportedLayerError
from fed_asi.layers import LayerState
from fed_asi.layers.keep import keep
from fed_asi.methods.base import (
    ASI,
    GradientFilter,
    Method,
    Quantized,
    SpatialMean,
    Vanilla,
)
from fed_asi.methods.ranks import PUBLISHED_EPSILONS, proposed_ranks, published_ranks, spectra
from fed_asi.planning.families import DEFAULT_METHODS, baseline
from fed_asi.planning.profile import Candidate, LayerProfile
from fed_asi.planning.recording import Record, constant_input, grouped

_WARM_STEPS = 2


def undominated(candidates: Iterable[Candidate]) -> tuple[Candidate, ...]:
    """Return the candidates that no other of the same kind and centring beats in both bytes and error.

    No plan loses by it, as plans admit forms by kind and centring; the published grid stays whole.
    """
    kept: list[Candidate] = []
    best: dict[tuple[str, bool], float] = {}
    for c in sorted(candidates, key=lambda c: (c.saved_bytes, c.error)):
        group = (c.method.kind, bool(getattr(c.method, "centered", False)))
        if c.epsilon is not None or c.error < best.get(group, float("inf")):
            kept.append(c)
            if c.epsilon is None:
                best[group] = c.error
    return tuple(kept)


def check_supported(items: Sequence[Record], methods: Sequence[str]) -> None:
    """Raise UnsupportedLayerError, with reasons, for a rival that none of the layers supports."""
    for text in methods:
        method = baseline(text)
        if method is None or not items:
            continue
        reasons = {item.name: _unsupported(item.module, method) for item in items}
        if all(reasons.values()):
            named = "; ".join(f"{name}: {reason}" for name, reason in list(reasons.items())[:3])
            more = f"; and {len(reasons) - 3} more" if len(reasons) > 3 else ""
            raise UnsupportedLayerError(f"no layer supports {text}: {named}{more}")


def _unsupported(module: nn.Module, method: Method) -> str | None:
    kind = layer_kinds.kind_of(module)
    return "no such layer is known" if kind is None else kind.unsupported(module, method)


@dataclass(frozen=True, slots=True)
class Study:
    """How the forms of a layer are tried: micro-batches, methods, and how many rank tuples of each."""

    micro_batches: tuple[int, ...]
    methods: tuple[str, ...] = DEFAULT_METHODS
    selection: str = "candidates"
    density: int = 10
    seed: int = 0

    def trial(self, item: Record, mean: Tensor) -> tuple[Trial, tuple[float, float, float]]:
        """Return the layer ready to try methods on, ||dW||, and the energies ||dW_c||^2 and ||dbias||^2.

        mean: (C,), what centred forms subtract.
        """
        exact = item.weight_gradient(item.canonical())
        centered = exact - item.weight_gradient(constant_input(mean, item.canonical()))
        energy = float(centered.double().square().sum())
        bias = float(item.bias_gradient.double().square().sum()) if item.bias_parameters else 0.0
        trial = Trial(item, mean, energy, seeds.derive(self.seed, item.name))
        return trial, (float(exact.double().norm()), energy, bias)

    def layer(self, item: Record, position: int, head: bool) -> LayerProfile:
        """Return the profile of one layer."""
        mean = item.mean()
        trial, (weight_norm, energy, bias_energy) = self.trial(item, mean)
        return LayerProfile(
            name=item.name,
            kind=type(item.module).__name__,
            input_shape=item.whole_shape,
            position=position,
            weight_parameters=item.weight().numel() + item.scale_parameters,
            bias_parameters=item.bias_parameters,
            weight_norm=weight_norm,
            centered_energy=energy,
            bias_energy=bias_energy,
            mean=tuple(float(f"{m:.6g}") for m in mean.tolist()),
            candidates={
                size: undominated(self._candidates(trial, size, head)) for size in self.micro_batches
            },
            head=head,
        )

    def _candidates(self, trial: Trial, micro_batch: int, head: bool) -> Iterator[Candidate]:
        for method, epsilon in self.forms(trial.item, micro_batch, head):
            candidate = trial.run(method, micro_batch, epsilon)
            if candidate is not None:
                yield candidate

    def forms(
        self, item: Record, micro_batch: int, head: bool, values: Sequence[Tensor] | None = None
    ) -> Iterator[tuple[Method, float | None]]:
        """Yield the methods to try; an epsilon marks those of the published grid.

        values: the spectra that ranks are proposed from, one a mode; the item's own by default.
        """
        published = self.selection == "published"
        centering = (False,) if published else (False, True)
        if "vanilla" in self.methods or head:
            yield from ((Vanilla(centered=c), None) for c in centering)
        if "asi" in self.methods or "asi-published" in self.methods:
            whole = grouped(item.canonical(), min(micro_batch, len(item.x)))
            yield from self._ranked(item, spectra(whole) if values is None else values)
        if not published and "quantized" in self.methods:
            yield from ((Quantized(bits, centered=c), None) for bits in (8, 4) for c in centering)
        if not published and "mean" in self.methods and item.pooled:
            yield SpatialMean(), None
        if not head:
            yield from ((method, None) for method in map(baseline, self.methods) if method is not None)

    def _ranked(self, item: Record, values: Sequence[Tensor]) -> Iterator[tuple[Method, float | None]]:
        order = "published" if "asi-published" in self.methods else "sequential"
        for epsilon in PUBLISHED_EPSILONS:
            yield ASI(in_layer_order(item, published_ranks(values, epsilon)), order=order), epsilon
        if self.selection == "published":
            return
        dims = tuple(len(mode) for mode in values)
        tried = [(ranks, bits) for ranks in proposed_ranks(dims, values, self.density) for bits in (32, 8)]
        tried.append((dims, 32))  # every rank full: exact, so that a large budget is not left unused
        for ranks, bits in tried:
            for c in (False, True):
                yield ASI(in_layer_order(item, ranks), bits=bits, centered=c, warm=False), None


@dataclass(frozen=True, slots=True)
class Trial:
    """One layer with its recorded input, ready to try methods on."""

    item: Record
    mean: Tensor
    energy: float
    seed: int

    def run(self, method: Method, micro_batch: int, epsilon: float | None) -> Candidate | None:
        """Return what the method costs and is worth; None when the layer cannot do it."""
        kind = layer_kinds.kind_of(self.item.module)
        if kind is None or _unsupported(self.item.module, method) is not None:
            return None
        count = min(micro_batch, len(self.item.x))
        if not method.sized:
            saved = self._measured_bytes(method, count)
        else:
            shape = (micro_batch, *self.item.kept_shape(method))
            saved = kind.saved_bytes(self.item.module, method, shape, self.item.x.dtype)
        error = float(f"{self._error(method, count):.6g}")
        return Candidate(method, saved, saved, error, self.energy - error**2, epsilon)

    def _error(self, method: Method, micro_batch: int) -> float:
        """Return ||dW_kept - dW||_F with micro-batches of that size side by side and warm factors."""
        if isinstance(method, (Vanilla, SpatialMean)):
            return 0.0
        if isinstance(method, GradientFilter):
            return self._filtered_error(method)
        x = self.item.canonical()
        state = self._state(method, micro_batch)
        kept = keep(x, state)
        if isinstance(method, ASI) and method.warm:
            for _ in range(_WARM_STEPS - 1):
                state.factors = state.pending
                kept = keep(x, state)
        restored = kept.restore()
        wanted = x - constant_input(self.mean, x) if getattr(method, "centered", False) else x
        return float(self.item.weight_gradient(restored - wanted).double().norm())

    def _measured_bytes(self, method: Method, micro_batch: int) -> int:
        """Return the most bytes that a micro-batch of the calibration batch keeps."""
        largest = 0
        for part in grouped(self.item.canonical(), micro_batch):
            kept = keep(part, self._state(method, None))
            storages = {t.untyped_storage()._cdata: t.untyped_storage().nbytes() for t in kept.tensors}
            largest = max(largest, sum(storages.values()))
        return largest

    def _filtered_error(self, method: GradientFilter) -> float:
        """Return ||dW_filtered - dW||_F of the compressed layer itself, whose kept form restores no input."""
        module = copy.deepcopy(self.item.module).requires_grad_(True).train()
        layer_kinds.attach_(module, self._state(method, None))
        with torch.enable_grad():
            torch.autograd.backward(module(self.item.x), self.item.g)
        found = module._parameters["weight"]
        if found is None or found.grad is None:
            raise UnsupportedLayerError(f"{self.item.name}: the gradient filter gave no weight gradient")
        return float((found.grad - self.item.weight_gradient(self.item.canonical())).double().norm())

    def _state(self, method: Method, micro_batch: int | None) -> LayerState:
        return LayerState(
            name=self.item.name,
            method=_canonical_method(self.item, method),
            original=type(self.item.module),
            seed=self.seed,
            micro_batch=micro_batch,
            mean=self.mean,
        )


def in_layer_order(item: Record, ranks: tuple[int, ...]) -> tuple[int, ...]:
    """Return canonical ranks (B, C, *S) in the order of the layer's own modes."""
    return (ranks[0], *ranks[2:], ranks[1]) if isinstance(item.module, nn.Linear) else ranks


def _canonical_method(item: Record, method: Method) -> Method:
    if not isinstance(method, ASI) or not isinstance(item.module, nn.Linear):
        return method
    return replace(method, ranks=(method.ranks[0], method.ranks[-1], *method.ranks[1:-1]))
