"""What training needs besides the saved activations, each part under its own name.

On a microcontroller all of this shares one memory. A budget limits the saved bytes alone unless a fleet says
otherwise, so print this table too before you say that training fits in 256 KiB.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fed_asi import layers
from fed_asi.layers.copying import copied
from fed_asi.memory.holders import static_tensors
from fed_asi.memory.meter import ActivationMeter
from fed_asi.memory.peak import StepMeter
from fed_asi.units import format_bytes

Loss = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True, slots=True)
class TrainingMemory:
    """Bytes of memory of one device's training, by purpose.

    weight_bytes: parameters and buffers of the trained part. trunk_weight_bytes: those of the frozen trunk.
    constant_bytes: means of centred layers. accumulator_bytes: gradients held from one micro-batch to the next.
    optimizer_bytes: momentum. saved_bytes: of one micro-batch, measured by ActivationMeter.
    step_transient_bytes: the most that forward and backward of the trained part hold beyond all of that, including
    their input if it is not saved.
    trunk_transient_bytes: the most that the trunk's forward allocates, before anything is saved.
    """

    weight_bytes: int
    trunk_weight_bytes: int
    constant_bytes: int
    accumulator_bytes: int
    optimizer_bytes: int
    saved_bytes: int
    step_transient_bytes: int
    trunk_transient_bytes: int

    @property
    def static_bytes(self) -> int:
        """Bytes that stay from step to step."""
        weights = self.weight_bytes + self.trunk_weight_bytes + self.constant_bytes
        return weights + self.accumulator_bytes + self.optimizer_bytes

    @property
    def total_bytes(self) -> int:
        """The peak of the bytes alive at one time: the static part, and the larger of trunk and step."""
        step = self.saved_bytes + self.step_transient_bytes
        return self.static_bytes + max(step, self.trunk_transient_bytes)

    def __str__(self) -> str:
        names = [field.name for field in fields(self)] + ["static_bytes", "total_bytes"]
        return "\n".join(f"{name:<24} {format_bytes(getattr(self, name)):>12}" for name in names)


def training_memory(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    trunk: nn.Module | None = None,
    momentum: bool = False,
    accumulate: bool = True,
    loss: Loss = F.cross_entropy,
) -> TrainingMemory:
    """Return the memory that training on one micro-batch needs; `model` and `trunk` are only read.

    model: at least the trained part, compressed or plain, in the mode it trains in. x: (b, ...), the input of the
    trunk, or of the model if there is no trunk. y: (b,). momentum: whether SGD has momentum. accumulate: False if the
    weights move after every micro-batch; gradients are then transient and not held.
    """
    model = copied(model)
    trunk_transient, features = 0, x
    if trunk is not None:
        with torch.no_grad(), StepMeter(x.device) as meter:
            features = trunk(x)
        trunk_transient = meter.peak_bytes
    trained = [p for p in model.parameters() if p.requires_grad]
    _step(model, features, y, loss)  # warm factors exist from the second step on
    for parameter in trained:
        parameter.grad = torch.zeros_like(parameter) if accumulate else None
    with StepMeter(x.device) as meter:
        activations = _step(model, features, y, loss)
    # Warm factors of the step before already existed when the meter started.
    fresh = activations.saved_bytes - activations.state_bytes
    slices = layers.slices_of(model)
    gradients = sum(
        slices[name].bytes_of(p) if name in slices else p.nbytes
        for name, p in model.named_parameters()
        if p.requires_grad
    )
    return TrainingMemory(
        weight_bytes=_weights(model),
        trunk_weight_bytes=0 if trunk is None else _weights(trunk),
        constant_bytes=sum(t.nbytes for module in model.modules() for t in static_tensors(module)),
        accumulator_bytes=gradients if accumulate else 0,
        optimizer_bytes=gradients if momentum else 0,
        saved_bytes=activations.saved_bytes,
        step_transient_bytes=max(0, meter.peak_bytes - fresh),
        trunk_transient_bytes=trunk_transient,
    )


def _step(model: nn.Module, x: Tensor, y: Tensor, loss: Loss) -> ActivationMeter:
    x, y = x.clone(), y.clone()  # so that they count among what the step allocates
    with ActivationMeter(model) as meter:
        value = loss(model(x), y)
    torch.autograd.backward(value)
    layers.commit_factors_(model)
    return meter


def _weights(model: nn.Module) -> int:
    return sum(tensor.nbytes for tensor in (*model.parameters(), *model.buffers()))
