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
from fed_asi.candidates import PUBLISHED_EPSILONS, proposed_ranks, published_ranks, spectra
from fed_asi.errors import ConfigError, UnsupportedLayerError, nearest
from fed_asi.layers import LayerState
from fed_asi.layers.keep import keep
from fed_asi.methods import (
    ASI,
    HOSVD,
    FixedSubspace,
    GradientFilter,
    Method,
    Quantized,
    SpatialMean,
    Vanilla,
)
from fed_asi.profiles import Candidate, LayerProfile

DEFAULT_METHODS = ("asi", "quantized", "vanilla", "bias", "mean")
SUPPORTED = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)
_WARM_STEPS = 2
_BASELINES = (HOSVD, FixedSubspace, GradientFilter)
_NAMES = (*DEFAULT_METHODS, "asi-published", *(cls.kind for cls in _BASELINES))


@dataclass(slots=True)
class Record:
    """What calibration saw of one layer.

    x: (N, ...) its input. g: (N, ...) the loss's gradient by its output. bias_gradient: (C',) by the bias
        of its
    batch norm where it has one, by its own otherwise. pooled: its output is only averaged over space, so x
    and g
    are of the pooled input, which is exact.
    """

    name: str
    module: nn.Module
    x: Tensor
    g: Tensor
    bias_gradient: Tensor
    bias_parameters: int
    whole_shape: tuple[int, ...]
    pooled: bool = False
    scale_parameters: int = 0

    def canonical(self) -> Tensor:
        """Return the input as (N, C, *S), channels second, as the layers keep it."""
        return self.x.movedim(channel_axis(self.module, self.x), 1)

    def kept_shape(self, method: Method) -> tuple[int, ...]:
        """Return the shape, of one image, of what the method is applied to: pooled first, but for Vanilla."""
        return self.whole_shape if isinstance(method, Vanilla) else tuple(self.x.shape[1:])

    def mean(self) -> Tensor:
        """Return the mean of the input per channel, (C,)."""
        return self.canonical().transpose(0, 1).flatten(1).mean(1)

    def weight_gradient(self, x: Tensor) -> Tensor:
        """Return dW for an input x: (N, C, *S) at the recorded output gradient."""
        if is_pointwise(self.module):
            g = self.g.movedim(channel_axis(self.module, self.g), 1).transpose(0, 1).flatten(1)
            return (g @ x.transpose(0, 1).flatten(1).mT).view_as(self.weight())
        return _by_autograd(self.module, self.weight(), x, self.g)

    def weight(self) -> Tensor:
        """Return the layer's weight; an error when it has none."""
        weight = self.module.weight
        if not isinstance(weight, Tensor):
            raise UnsupportedLayerError(f"{self.name} has no weight to train")
        return weight


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


def kind_name(text: str) -> str:
    """Return the kind a planned method's text stands for: "hosvd" of "hosvd(epsilon=0.7)"."""
    found = baseline(text)
    return found.kind if found is not None else text.removesuffix("-published")


def baseline(text: str) -> Method | None:
    """Return the rival that a text such as "filter(patch=4)" names; None where it names no rival."""
    name = text.partition("(")[0].strip().lower()
    known = [cls for cls in _BASELINES if name in {cls.kind, *cls.aliases}]
    return Method.parse(text) if known else None


def method_problems(texts: Sequence[str]) -> list[str]:
    """Return what is wrong with methods that are to be planned."""
    problems = []
    for text in texts:
        try:
            if baseline(text) is None and text not in _NAMES:
                hint = "leave the layer out" if text == "frozen" else nearest(text, _NAMES)
                problems.append(f"method {text!r} is not known to the planner; {hint}")
        except ConfigError as error:
            problems.append(str(error))
    return problems


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


def channel_axis(module: nn.Module, tensor: Tensor) -> int:
    """Return which axis of the layer's input or output holds the channels."""
    return tensor.dim() - 1 if isinstance(module, nn.Linear) else 1


def is_pointwise(module: nn.Module) -> bool:
    """Return whether the layer is a matrix product at every position."""
    if isinstance(module, nn.Linear):
        return True
    if not isinstance(module, (nn.Conv1d, nn.Conv2d, nn.Conv3d)) or module.groups != 1:
        return False
    ones = (*module.kernel_size, *module.stride)
    return all(n == 1 for n in ones) and module.padding in ("same", "valid", (0,) * len(module.kernel_size))


def _by_autograd(module: nn.Module, weight: Tensor, x: Tensor, g: Tensor) -> Tensor:
    if not isinstance(module, (nn.Conv1d, nn.Conv2d, nn.Conv3d)):
        raise UnsupportedLayerError(f"{type(module).__name__} has no weight gradient here")
    free = weight.detach().requires_grad_()
    with torch.enable_grad():
        y = module._conv_forward(x, free, None)
        (gradient,) = torch.autograd.grad(y, free, g)
    return gradient


@dataclass(frozen=True, slots=True)
class Study:
    """How the forms of a layer are tried: micro-batches, methods, and how many rank tuples of each."""

    micro_batches: tuple[int, ...]
    methods: tuple[str, ...] = DEFAULT_METHODS
    selection: str = "candidates"
    density: int = 10
    seed: int = 0

    def trial(self, item: Record, mean: Tensor) -> tuple[_Trial, tuple[float, float, float]]:
        """Return the layer ready to try methods on, ||dW||, and the energies ||dW_c||^2 and ||dbias||^2.

        mean: (C,), what centred forms subtract.
        """
        exact = item.weight_gradient(item.canonical())
        centered = exact - item.weight_gradient(_constant(mean, item.canonical()))
        energy = float(centered.double().square().sum())
        bias = float(item.bias_gradient.double().square().sum()) if item.bias_parameters else 0.0
        trial = _Trial(item, mean, energy, seeds.derive(self.seed, item.name))
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

    def _candidates(self, trial: _Trial, micro_batch: int, head: bool) -> Iterator[Candidate]:
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
class _Trial:
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
        wanted = x - _constant(self.mean, x) if getattr(method, "centered", False) else x
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


def _constant(mean: Tensor, x: Tensor) -> Tensor:
    """Return an input like x: (N, C, *S) that is its channel mean everywhere."""
    return mean.view(1, -1, *[1] * (x.dim() - 2)).expand_as(x).contiguous()


def in_layer_order(item: Record, ranks: tuple[int, ...]) -> tuple[int, ...]:
    """Return canonical ranks (B, C, *S) in the order of the layer's own modes."""
    return (ranks[0], *ranks[2:], ranks[1]) if isinstance(item.module, nn.Linear) else ranks


def _canonical_method(item: Record, method: Method) -> Method:
    if not isinstance(method, ASI) or not isinstance(item.module, nn.Linear):
        return method
    return replace(method, ranks=(method.ranks[0], method.ranks[-1], *method.ranks[1:-1]))


def grouped(x: Tensor, micro_batch: int) -> Tensor:
    """Return x: (N, ...) as (m, micro_batch, ...); a last incomplete micro-batch is left out."""
    count = len(x) // micro_batch
    return x[: count * micro_batch].reshape(count, micro_batch, *x.shape[1:])
