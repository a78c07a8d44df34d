"""Stochastic gradient descent over named tensors, in the order of arXiv 2505.05086: clip, decay, momentum, step.

What a strategy adds to the objective comes before the clip, what it corrects between decay and momentum.
torch.optim's first use imports its compiler, seconds in every worker process; these are the same operations.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from fed_asi.strategies.local import Local


class Sgd:
    """Steps parameters in place; equal to clip_grad_norm_ and torch.optim.SGD(foreach=False) to the bit.

    parameters: (name, parameter); those that do not require a gradient are left out.
    clip_norm: gradients are scaled down to this 2-norm over all parameters; None leaves them.
    local: what a strategy does otherwise in each step; None: nothing.
    """

    def __init__(
        self,
        parameters: Iterable[tuple[str, nn.Parameter]],
        *,
        momentum: float = 0.0,
        weight_decay: float = 0.0,
        clip_norm: float | None = None,
        local: Local | None = None,
    ) -> None:
        self.parameters = [(name, p) for name, p in parameters if p.requires_grad]
        self.momentum = momentum
        self.weight_decay = weight_decay
        self.clip_norm = clip_norm
        self.local = local
        self._velocity: dict[str, Tensor] = {}

    def step_(self, lr: float) -> None:
        """Move every parameter that has a gradient, then drop the gradients."""
        with torch.no_grad():
            if self.local is not None:
                for name, parameter in self.parameters:
                    if parameter.grad is not None:
                        self.local.objective_(name, parameter.detach(), parameter.grad)
            self._clip_()
            for name, parameter in self.parameters:
                if parameter.grad is not None:
                    parameter.add_(self._direction(name, parameter, parameter.grad), alpha=-lr)
                parameter.grad = None

    @property
    def state_bytes(self) -> int:
        """Bytes of the momentum buffers."""
        return sum(velocity.nbytes for velocity in self._velocity.values())

    def _clip_(self) -> None:
        grads = [p.grad for _, p in self.parameters if p.grad is not None]
        if self.clip_norm is None or not grads:
            return
        norm = torch.linalg.vector_norm(torch.stack([torch.linalg.vector_norm(grad) for grad in grads]))
        scale = torch.clamp(self.clip_norm / (norm + 1e-6), max=1.0)
        for grad in grads:
            grad.mul_(scale)

    def _direction(self, name: str, parameter: Tensor, grad: Tensor) -> Tensor:
        if self.weight_decay != 0.0:
            grad = grad.add(parameter, alpha=self.weight_decay)
        if self.local is not None:
            grad = self.local.direction(name, grad)
        if self.momentum == 0.0:
            return grad
        if name in self._velocity:
            self._velocity[name].mul_(self.momentum).add_(grad)
        else:
            self._velocity[name] = grad.clone()
        return self._velocity[name]


def learning_rate(lr: float, final_ratio: float, schedule: str, round: int, rounds: int) -> float:
    """Return the rate of a round (from 1): constant, or a half cosine from lr to final_ratio * lr."""
    if schedule == "constant" or rounds <= 1:
        return lr
    share = 0.5 * (1.0 + math.cos(math.pi * (round - 1) / (rounds - 1)))
    return lr * (final_ratio + (1.0 - final_ratio) * share)
