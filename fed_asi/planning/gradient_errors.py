"""How far the weight gradient of one layer is from the true one when its input is kept in some form.

Exact in the sense of training: the layers' own code cuts and rounds the recorded input, and dW is that of what it
kept. What forms have in common is done once: the centred input and its dW, and the decomposition that forms of the
same ranks differ from in bits alone. A Tucker form's dW comes from its factors, as in a step, where that is less
work than from the input multiplied out.
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

WARM_STEPS = 2  # of a form that starts from its last factors, on the same batch
TOLD_APART = 1e-4  # of ||dW||: two float32 gradients that are closer than that differ by their rounding


@dataclass(frozen=True, slots=True)
class _Given:
    """A layer's input, (N, C, *S): as it lies in memory, and as restored ones do; its dW, and ||dW||.

    The order of memory decides the last bits of what is cut from it, and so what 8 bits round that to.
    """

    x: Tensor
    restored: Tensor
    exact: Tensor
    norm: float


@dataclass(frozen=True, slots=True)
class GradientErrors:
    """The errors of one layer's forms, on what was recorded of it.

    mean: (C,), what centred forms subtract. seed: of random starts. channel_energies: (C,), of centred inputs. bases:
    the factors that calibration fixed, by the text of the method they are for.
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
        """Return ||dW_kept - dW||_F with micro-batches of that size side by side and warm factors."""
        if method.exact:
            return 0.0
        if (method, micro_batch) not in self._known:  # the papers' shares of energy often give the same ranks
            find = self._of_the_form if method.restores else self._of_the_layer
            self._known[method, micro_batch] = find(method, micro_batch)
        return self._known[method, micro_batch]

    def wanted(self, centers: bool) -> Tensor:
        """Return the input as a method sees it: (N, C, *S), less its mean where that is kept."""
        return self._given(centers).x

    def exact(self, centers: bool) -> Tensor:
        """Return dW of the input, or of the input less its mean."""
        return self._given(centers).exact

    def state(self, method: Method, micro_batch: int | None) -> LayerState:
        """Return the state of a layer that keeps its input so."""
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
        """Return the input and what follows from it, found once."""
        if centers not in self._inputs:
            x = self.item.canonical()
            if centers:
                x = x - channel_mean(x, self.state(Method(), None))
            exact = self.item.weight_gradient(x)
            self._inputs[centers] = _Given(x, x.contiguous(), exact, _norm(exact))
        return self._inputs[centers]

    def _of_the_form(self, method: Method, micro_batch: int) -> float:
        """Return ||dW_kept - dW||_F of a form that gives an input back."""
        given = self._given(method.centers)
        kept = self._kept(method, micro_batch)
        kind, module, g = self.item.kind, self.item.module, self.item.g
        found = kind.gradient_from_factors(module, kept, g)
        if found is not None:
            error = _norm(found.sub_(given.exact))
            if error > TOLD_APART * given.norm:
                return error
        if not self._gradient:
            self._gradient.append(g.contiguous())  # as restored inputs are, so that no form copies it again
        return _norm(kind.weight_gradient(module, kept.restore() - given.restored, self._gradient[0]))

    def _kept(self, method: Method, micro_batch: int) -> Kept:
        """Return what the method keeps; the newest form before rounding serves those that differ in bits alone."""
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
        """Return what a method keeps that starts from its last factors, on the same batch."""
        state = self.state(method, micro_batch)
        kept = Kept()
        for _ in range(WARM_STEPS):
            kept = state.method.form(self.wanted(method.centers), state)
            state.factors = state.pending
        return kept

    def _of_the_layer(self, method: Method, _micro_batch: int) -> float:
        """Return ||dW_method - dW||_F of the compressed layer itself, whose kept form restores no input."""
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
