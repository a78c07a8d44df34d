"""How far one layer's weight gradient is from the exact one when its input is kept in some form.

The result is what training would see: the layers' own code cuts and rounds the recorded input, and dW is computed from
what it kept. Work that forms share is done once: centring the input, its exact dW, and the decomposition of forms that
have the same ranks and differ only in bits. For a Tucker form, dW is computed from the factors, as in a training step,
where that is less work than multiplying out the input.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, field

import torch
from torch import Tensor

from fed_asi.errors import UnsupportedLayerError
from fed_asi.layers import LayerState, attach_, go_along_
from fed_asi.methods import Method
from fed_asi.methods.base import channel_mean
from fed_asi.methods.bases import Bases, factors_of
from fed_asi.methods.forms import Kept
from fed_asi.planning.recording import Record

WARM_STEPS = 2  # iterations on the same batch, for a form that starts from its last factors
TOLD_APART = 1e-4  # of ||dW||: closer float32 gradients may differ by rounding alone


@dataclass(frozen=True, slots=True)
class _Given:
    """A layer's input (N, C, *S) in two memory layouts, its exact dW, and ||dW||.

    x: as recorded. restored: contiguous, as inputs restored from a form are. The layout decides the last bits of what
    is cut from an input, and so how 8 bits round it.
    """

    x: Tensor
    restored: Tensor
    exact: Tensor
    norm: float


@dataclass(frozen=True, slots=True)
class GradientErrors:
    """The gradient errors of one layer's forms, on its recorded input and output gradient.

    mean: (C,), subtracted by centred forms. seed: of random starts. channel_energies: (C,), of the gradient of centred
    inputs. bases: the factors that calibration fixed, by the method's text.
    """

    item: Record
    mean: Tensor
    seed: int
    channel_energies: Tensor = field(default_factory=lambda: torch.empty(0, dtype=torch.float64))
    bases: dict[str, Bases] = field(default_factory=dict)
    _gradient: list[Tensor] = field(default_factory=list)
    _inputs: dict[bool, _Given] = field(default_factory=dict)
    _newest: dict[bool, tuple[Method, int, Kept]] = field(default_factory=dict)
    _known: dict[tuple[Method, int], float] = field(default_factory=dict)

    def of(self, method: Method, micro_batch: int) -> float:
        """Return ||dW_kept - dW||_F for a method, with warm factors; micro-batches of this size split the batch."""
        if method.exact:
            return 0.0
        if (method, micro_batch) not in self._known:  # the papers' epsilons often give the same ranks
            find = self._of_the_form if method.restores else self._of_the_layer
            self._known[method, micro_batch] = find(method, micro_batch)
        return self._known[method, micro_batch]

    def wanted(self, centers: bool) -> Tensor:
        """Return the input that a method gets, (N, C, *S): less its mean if the method centres."""
        return self._given(centers).x

    def exact(self, centers: bool) -> Tensor:
        """Return the exact dW of the input, or of the centred input."""
        return self._given(centers).exact

    def state(self, method: Method, micro_batch: int | None) -> LayerState:
        """Return the state of a layer that keeps its input by this method."""
        bases = self.bases.get(str(method)) if self.bases else None
        state = LayerState(
            name=self.item.name,
            method=method.reordered(self.item.kind.canonical_order),
            original=type(self.item.module),
            seed=self.seed,
            micro_batch=micro_batch,
            mean=self.mean,
            channels=method.choose(self.channel_energies, self.seed),
            factors=None if bases is None else factors_of(bases),
        )
        go_along_(state, self.item.x.device)
        return state

    def _given(self, centers: bool) -> _Given:
        """Return the input and what is derived from it, computed once."""
        if centers not in self._inputs:
            x = self.item.canonical()
            if centers:
                x = x - channel_mean(x, self.state(Method(), None))
            exact = self.item.weight_gradient(x)
            self._inputs[centers] = _Given(x, x.contiguous(), exact, _norm(exact))
        return self._inputs[centers]

    def _of_the_form(self, method: Method, micro_batch: int) -> float:
        """Return ||dW_kept - dW||_F of a form from which an input can be restored."""
        given = self._given(method.centers)
        kept = self._kept(method, micro_batch)
        kind, module, g = self.item.kind, self.item.module, self.item.g
        found = kind.gradient_from_factors(module, kept, g)
        if found is not None:
            error = _norm(found.sub_(given.exact))
            if error > TOLD_APART * given.norm:
                return error
        if not self._gradient:
            self._gradient.append(g.contiguous())  # like restored inputs, so that no form has to copy it
        return _norm(kind.weight_gradient(module, kept.restore() - given.restored, self._gradient[0]))

    def _kept(self, method: Method, micro_batch: int) -> Kept:
        """Return what the method keeps. The last unrounded form is reused for methods that differ only in bits."""
        whole = method.unrounded()
        if whole.warm_start:
            return self._warm(method, micro_batch)
        newest = self._newest.get(method.centers)
        if newest is None or newest[:2] != (whole, micro_batch):
            state = self.state(whole, micro_batch)
            newest = whole, micro_batch, state.method.form(self.wanted(method.centers), state)
            self._newest[method.centers] = newest
        return method.rounded(newest[2])

    def _warm(self, method: Method, micro_batch: int) -> Kept:
        """Return what a warm-starting method keeps after some iterations on the same batch."""
        state = self.state(method, micro_batch)
        kept = Kept()
        for _ in range(WARM_STEPS):
            kept = state.method.form(self.wanted(method.centers), state)
            state.factors = state.pending
        return kept

    def _of_the_layer(self, method: Method, _micro_batch: int) -> float:
        """Return ||dW_method - dW||_F of the compressed layer itself, for methods that restore no input."""
        module = copy.deepcopy(self.item.module).requires_grad_(True).train()
        attach_(module, self.state(method, None))
        with torch.enable_grad():
            torch.autograd.backward(module(self.item.x), self.item.g)
        found = module._parameters["weight"]
        if found is None or found.grad is None:
            raise UnsupportedLayerError(f"{self.item.name}: {method} gave no weight gradient")
        return _norm(found.grad - self.exact(False))


def _norm(gradient: Tensor) -> float:
    return float(torch.linalg.vector_norm(gradient, dtype=torch.float64))
