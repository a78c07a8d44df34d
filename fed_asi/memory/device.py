"""The memory a device needs to train: its RAM and its flash, each byte under one name.

RAM holds everything that is written: trained weights, accumulated gradients, the optimizer's state, fixed means, warm
factors, the copies that a strategy and a codec hold, and the arena of the trunk or of the step, whichever is larger. A
reserve stands for what is not counted here, such as the memory of the runtime and its stack. Flash holds everything
that is only read, in its storage format; the program is not included.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fed_asi.memory.arena.offsets import ALIGNMENT
from fed_asi.memory.arena.planned import Arena, ArenaTensor, arena, inference_arena
from fed_asi.memory.arena.step import Gradients, Loss, MakeMover, MakeOptimizer
from fed_asi.memory.stored import (
    Format,
    TrainedFormat,
    activation_bytes,
    format_of,
    spared_bytes,
    stored_bytes,
    trained_bytes,
)
from fed_asi.units import format_bytes


@dataclass(frozen=True, slots=True)
class DeviceMemory:
    """Bytes of memory of one device that trains, by purpose.

    trained_bytes: weights that are trained. gradient_bytes: gradients accumulated over micro-batches. optimizer_bytes:
    momentum. mean_bytes: fixed means of centred layers. factor_bytes: warm factors. strategy_bytes: copies of the
    trained weights that a strategy and a codec hold. waiting_bytes: features of the other images of a micro-batch,
    while the trunk runs on the last one. reserve_bytes: a reserve for what is not counted.
    frozen_bytes: weights and statistics that are only read. constant_bytes: tables and random starts, only read.
    trunk, step: the arenas of the two phases; trunk is None where the whole model is trained.
    """

    trained_bytes: int
    gradient_bytes: int
    optimizer_bytes: int
    mean_bytes: int
    factor_bytes: int
    strategy_bytes: int
    waiting_bytes: int
    reserve_bytes: int
    frozen_bytes: int
    constant_bytes: int
    trunk: Arena | None
    step: Arena

    @property
    def static_bytes(self) -> int:
        """Bytes of RAM that stay from step to step."""
        held = self.gradient_bytes + self.optimizer_bytes + self.mean_bytes + self.factor_bytes
        return self.trained_bytes + held + self.strategy_bytes

    @property
    def trunk_bytes(self) -> int:
        """Bytes of transient RAM while the trunk runs, one image at a time."""
        return 0 if self.trunk is None else self.trunk.bytes + self.waiting_bytes

    @property
    def phase(self) -> str:
        """The phase that needs more RAM: "trunk" or "step"."""
        return "trunk" if self.trunk_bytes > self.step.bytes else "step"

    @property
    def ram_bytes(self) -> int:
        """Bytes of RAM: the static part, the larger phase, and the reserve."""
        return self.static_bytes + max(self.trunk_bytes, self.step.bytes) + self.reserve_bytes

    @property
    def flash_bytes(self) -> int:
        """Bytes of flash: everything that is only read, in its storage format."""
        return self.frozen_bytes + self.constant_bytes

    def largest(self, count: int = 3) -> tuple[ArenaTensor, ...]:
        """Return the largest tensors alive at the peak of the phase that needs more RAM."""
        phase = self.trunk if self.phase == "trunk" and self.trunk is not None else self.step
        return phase.at_peak[:count]

    def __str__(self) -> str:
        rows = {
            "trained weights": self.trained_bytes,
            "accumulated gradients": self.gradient_bytes,
            "optimizer": self.optimizer_bytes,
            "fixed means": self.mean_bytes,
            "warm factors": self.factor_bytes,
            "strategy and codec": self.strategy_bytes,
            "trunk": self.trunk_bytes,
            "step": self.step.bytes,
            "reserve": self.reserve_bytes,
            "RAM": self.ram_bytes,
            "flash": self.flash_bytes,
        }
        lines = [f"{name:<22} {format_bytes(size):>12}" for name, size in rows.items()]
        tensors = ", ".join(f"{one.name} {format_bytes(one.bytes)}" for one in self.largest())
        return "\n".join([*lines, f"the {self.phase} needs more; largest there: {tensors}"])


def device_memory(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    trunk: nn.Module | None = None,
    gradients: Gradients = "held",
    optimizer: MakeOptimizer | None = None,
    mover: MakeMover | None = None,
    loss: Loss = F.cross_entropy,
    copies: int = 0,
    reserve_bytes: int = 0,
    storage: Format = "float32",
    trained_as: TrainedFormat = "float32",
    alignment: int = ALIGNMENT,
    of_this_batch: bool = False,
) -> DeviceMemory:
    """Return the memory a device needs to train on micro-batches like x; model and trunk are only read.

    model: at least the trained part, plain or compressed, in the mode it trains in. trunk: the frozen part before it,
    which runs on one image at a time. x: (b, ...), the input of the trunk, or of the model if there is no trunk. Its
    memory format can change which copies a step makes; planned steps have channels last. y: (b,). gradients: "held" if
    a batch is one micro-batch, "accumulated" if it is several, "applied" if each gradient updates its weight at once.
    copies: number of copies of the trained weights that a strategy and a codec hold: `len(strategy.holds |
    codec.holds)`. storage: format of what is only read, including the untrained rest of a weight of which some channels
    train, and of the trunk's activations. trained_as: format in RAM of what is trained. Pass the model and the trunk in
    float32, the trunk with its batch norms folded (`compression.cut.folded`), as stored. For the other arguments and
    errors see `fed_asi.arena`.
    """
    features, before, storage = x, None, format_of(storage)
    if trunk is not None:
        before = inference_arena(
            trunk, x[:1], storage=storage, alignment=alignment, of_this_batch=of_this_batch
        )
        with torch.no_grad():
            features = trunk(x)
    step = arena(
        model,
        features,
        y,
        gradients=gradients,
        optimizer=optimizer,
        mover=mover,
        loss=loss,
        alignment=alignment,
        of_this_batch=of_this_batch,
    )
    read = None if trunk is None else stored_bytes((*trunk.parameters(), *trunk.buffers()), storage)
    return in_all(
        step,
        before,
        waiting_bytes=0 if trunk is None else activation_bytes(features[1:].nbytes, storage),
        copies=copies,
        reserve_bytes=reserve_bytes,
        read_bytes=read,
        spared_bytes=spared_bytes(model, storage),
        trained_as=trained_as,
    )


def in_all(
    step: Arena,
    before: Arena | None,
    *,
    waiting_bytes: int = 0,
    copies: int = 0,
    reserve_bytes: int = 0,
    read_bytes: int | None = None,
    spared_bytes: int = 0,
    trained_as: TrainedFormat = "float32",
) -> DeviceMemory:
    """Return the memory of a device whose phases have these arenas. before: the trunk's; None without a trunk.

    read_bytes: bytes of the trunk's weights as stored; None: as the arena counts them. spared_bytes: bytes that the
    storage format saves on what the trained part only reads. trained_as: format of trained weights; copies of them,
    for a strategy and a codec, are float32.
    """
    read = 0 if before is None else before.trained_bytes + before.frozen_bytes
    read = read if read_bytes is None else read_bytes
    return DeviceMemory(
        trained_bytes=trained_bytes(step.trained_bytes, trained_as),
        gradient_bytes=step.gradient_bytes,
        optimizer_bytes=step.optimizer_bytes,
        mean_bytes=step.mean_bytes,
        factor_bytes=step.factor_bytes,
        strategy_bytes=copies * step.trained_bytes,
        waiting_bytes=waiting_bytes,
        reserve_bytes=reserve_bytes,
        frozen_bytes=read + step.frozen_bytes - spared_bytes,
        constant_bytes=step.constant_bytes + (0 if before is None else before.constant_bytes),
        trunk=before,
        step=step,
    )
