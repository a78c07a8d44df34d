"""Stochastic gradient descent over named tensors, in the order of arXiv 2505.05086: clip, decay, momentum, step.

A strategy's term of the objective is added before clipping, its correction between decay and momentum.
torch.optim's first use imports its compiler, which takes seconds in every worker process; these are the same
operations.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import cast

import torch
from torch import Tensor, nn

from fed_asi.layers.gradient import WeightGradient
from fed_asi.layers.slices import Slice
from fed_asi.storage.trained import HalfWeights
from fed_asi.strategies.local import Local


class Sgd:
    """Steps parameters in place; equal to clip_grad_norm_ and torch.optim.SGD(foreach=False) to the bit.

    parameters: (name, parameter); those that do not require a gradient are left out.
    clip_norm: gradients are scaled down to this 2-norm over all parameters; None: no clipping.
    slices: by name, for parameters that train in part: gradient, momentum and decay cover that part only, and the
    rest
        does not change by a bit.
    local: what a strategy adds to each step; None: nothing.
    stored: what keeps trained weights in a coarser format, after each move; None: they are float32.
    """

    def __init__(
        self,
        parameters: Iterable[tuple[str, nn.Parameter]],
        *,
        momentum: float = 0.0,
        weight_decay: float = 0.0,
        clip_norm: float | None = None,
        slices: Mapping[str, Slice] | None = None,
        local: Local | None = None,
        stored: HalfWeights | None = None,
    ) -> None:
        self.parameters = [(name, p) for name, p in parameters if p.requires_grad]
        self.momentum = momentum
        self.weight_decay = weight_decay
        self.clip_norm = clip_norm
        self.slices = dict(slices or {})
        self.local = local
        self.stored = stored
        self._velocity: dict[str, Tensor] = {}
        self._held: dict[str, Tensor] = {}
        self._sparse: dict[str, WeightGradient] = {}

    def step_(self, lr: float) -> None:
        """Move every parameter that has a gradient, then drop the gradients."""
        with torch.no_grad():
            found = self._gradients()
            if self.local is not None:
                for name, parameter in self.parameters:
                    if isinstance(gradient := found.get(name), Tensor):
                        self.local.objective_(name, self._trained(name, parameter), gradient)
            self.clip_(list(found.values()))
            for name, parameter in self.parameters:
                if name in found:
                    self._step_one_(name, parameter, found[name], lr)
                    self._store_(name, parameter)
            self.drop_gradients_()

    def store_(self) -> None:
        """Bring all that trains into the format in which it is kept."""
        for name, parameter in self.parameters:
            self._store_(name, parameter)

    def gradients(self) -> dict[str, Tensor]:
        """Return the present gradients by name; for a parameter that trains in part, that of the part."""
        return {
            name: gradient if isinstance(gradient, Tensor) else gradient.whole()
            for name, gradient in self._gradients().items()
        }

    def _gradients(self) -> dict[str, Tensor | WeightGradient]:
        found: dict[str, Tensor | WeightGradient] = {}
        for name, parameter in self.parameters:
            if name in self._held:
                found[name] = self._held[name]
            elif parameter.grad is not None:
                part = self.slices.get(name)
                found[name] = parameter.grad if part is None else part.of(parameter.grad)
            elif name in self._sparse:
                found[name] = self._sparse[name]
        return found

    def drop_gradients_(self) -> None:
        """Free all gradients."""
        self._held.clear()
        self._sparse.clear()
        for _, parameter in self.parameters:
            parameter.grad = None

    def hold_zeros_(self) -> None:
        """Hold zeros for each part, as a device does that adds up gradients from the first micro-batch on."""
        for name, parameter in self.parameters:
            if name in self.slices:
                self._held[name] = parameter.new_zeros(self.slices[name].shape_of(parameter))

    def hold_(self, name: str, gradient: WeightGradient, parameter: Tensor) -> None:
        """Add the gradient of a part to the one held, without allocating the whole weight's size."""
        if name not in self._held:
            self._held[name] = parameter.new_zeros(self.slices[name].shape_of(parameter))
        gradient.add_to_(self._held[name], 1.0)

    def hold_sparse_(self, name: str, gradient: WeightGradient, parameter: Tensor) -> bool:
        """Hold a gradient of which most is zero as it is; return whether it is held, and need not be accumulated.

        The second one of a step is not, and the first is then made whole. With momentum, decay or a strategy's term, a
        step has more to add than this gradient, so it must be whole from the beginning.
        """
        plain = self.momentum == 0.0 and self.weight_decay == 0.0 and type(self.local) in {Local, type(None)}
        if not plain or parameter.grad is not None or name in self.slices:
            return False
        if name in self._sparse:
            parameter.grad = self._sparse.pop(name).whole()
            return False
        self._sparse[name] = gradient
        return True

    def move_(self, name: str, parameter: Tensor, gradient: Tensor | WeightGradient, lr: float) -> None:
        """Move one parameter by its gradient, which need not be formed whole; decay and momentum as in `step_`."""
        self._move_(name, parameter, gradient, lr)
        self._store_(name, parameter)

    def _move_(self, name: str, parameter: Tensor, gradient: Tensor | WeightGradient, lr: float) -> None:
        part = self.slices.get(name)
        if self.momentum == 0.0:
            if self.weight_decay != 0.0:
                _decay_(parameter, part, 1.0 - lr * self.weight_decay)
            _add_(parameter, gradient, -lr)
            return
        velocity = self._velocity_of(name, parameter).mul_(self.momentum)
        if part is not None and isinstance(gradient, Tensor):  # from autograd: zero outside of the part
            gradient = part.of(gradient)
        _add_(velocity, gradient, 1.0)
        if self.weight_decay != 0.0:
            velocity.add_(parameter if part is None else part.of(parameter), alpha=self.weight_decay)
        if part is None:
            parameter.add_(velocity, alpha=-lr)
        else:
            part.add_(parameter, velocity, -lr)

    def clip_(self, gradients: Sequence[Tensor | WeightGradient]) -> None:
        """Scale these gradients down to the clipping norm, taken over all of them together."""
        if self.clip_norm is None or not gradients:
            return
        norm = torch.linalg.vector_norm(torch.stack([_norm(gradient) for gradient in gradients]))
        scale = torch.clamp(self.clip_norm / (norm + 1e-6), max=1.0)
        for gradient in gradients:
            if isinstance(gradient, WeightGradient):
                gradient.multiply_(scale)
            else:
                gradient.mul_(scale)

    @property
    def state_bytes(self) -> int:
        """Bytes of the momentum buffers."""
        return sum(velocity.nbytes for velocity in self._velocity.values())

    def trained_bytes(self, name: str, parameter: Tensor) -> int:
        """Return the bytes of the trained part of a parameter, which are those of its gradient, too."""
        return parameter.nbytes if name not in self.slices else self.slices[name].bytes_of(parameter)

    @property
    def gradient_bytes(self) -> int:
        """Bytes of the gradients of all that trains."""
        return sum(self.trained_bytes(name, parameter) for name, parameter in self.parameters)

    def _step_one_(self, name: str, parameter: Tensor, grad: Tensor | WeightGradient, lr: float) -> None:
        part = self.slices.get(name)
        if isinstance(grad, WeightGradient):
            grad.add_to_(parameter, -lr)
            return
        if self.weight_decay != 0.0:  # into the gradient, which is dropped after the step: no copy of either
            if part is None:
                grad.add_(parameter, alpha=self.weight_decay)
            else:
                part.add_to_(grad, parameter, self.weight_decay)
        if part is None:
            parameter.add_(self._direction(name, grad), alpha=-lr)
        else:
            part.add_(parameter, self._direction(name, grad), -lr)

    def _store_(self, name: str, parameter: Tensor) -> None:
        if self.stored is not None:
            self.stored.store_(parameter, self.slices.get(name))

    def _trained(self, name: str, parameter: Tensor) -> Tensor:
        """Return the trained part of a parameter."""
        part = self.slices.get(name)
        return parameter.detach() if part is None else part.of(parameter.detach())

    def _direction(self, name: str, grad: Tensor) -> Tensor:
        if self.local is not None:
            grad = self.local.direction(name, grad)
        if self.momentum == 0.0:
            return grad
        if name in self._velocity:
            self._velocity[name].mul_(self.momentum).add_(grad)
        else:
            self._velocity[name] = grad.clone()
        return self._velocity[name]

    def _velocity_of(self, name: str, parameter: Tensor) -> Tensor:
        """Return a parameter's momentum, for its trained part only; zeros at first."""
        if name not in self._velocity:
            part = self.slices.get(name)
            shape = parameter.shape if part is None else part.shape_of(parameter)
            self._velocity[name] = parameter.new_zeros(shape)
        return self._velocity[name]


def _norm(gradient: Tensor | WeightGradient) -> Tensor:
    if isinstance(gradient, WeightGradient):
        return gradient.squared_norm().sqrt()
    return cast(Tensor, torch.linalg.vector_norm(gradient))


def _decay_(parameter: Tensor, part: Slice | None, factor: float) -> None:
    if part is None:
        parameter.mul_(factor)
    else:
        part.multiply_(parameter, factor)


def _add_(target: Tensor, gradient: Tensor | WeightGradient, factor: float) -> None:
    if isinstance(gradient, WeightGradient):
        gradient.add_to_(target, factor)
    else:
        target.add_(gradient, alpha=factor)


def learning_rate(lr: float, final_ratio: float, schedule: str, round: int, rounds: int) -> float:
    """Return the learning rate of a round (from 1): constant, or a half cosine from lr to final_ratio * lr."""
    if schedule == "constant" or rounds <= 1:
        return lr
    share = 0.5 * (1.0 + math.cos(math.pi * (round - 1) / (rounds - 1)))
    return lr * (final_ratio + (1.0 - final_ratio) * share)
