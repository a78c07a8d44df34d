"""One optimizer step of a device, metered: its micro-batches side by side, or truly one after another.

Computing them side by side is how the simulator makes micro-batches of 1 cost about as much as a full batch: the
layers treat each micro-batch separately within one batched product, so gradients and bytes are those of the real
device.

Where weights move after each micro-batch, that is an approximation, which has to be asked for: all gradients of a
batch, or of some of its images, are then computed with the weights from its or their start.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fed_asi import layers
from fed_asi.compression.compress import check_gradients
from fed_asi.errors import FedAsiError, OverBudgetError, UnsupportedLayerError
from fed_asi.memory.meter import ActivationMeter
from fed_asi.torch_private import BATCH_NORM, DROPOUT
from fed_asi.training.at_once import AtOnce, Parts, by_itself
from fed_asi.training.sgd import Sgd
from fed_asi.training.whole_step import WholeStep
from fed_asi.units import format_bytes, told_apart

SCALARS = 16  # bytes


GRADIENTS = 1e-2  # relative to their norm: float32 rounding, amplified by bases that are found by iteration


Covers = Literal["saved", "published", "training"]
Update = Literal["step", "micro-batch", "layer"]  # when weights move: after each of these
# Whose first weights a micro-batch's gradient is computed with: its own, its batch's, or those of that many images.
GradientsAt = Literal["micro-batch", "batch"] | int


class DeadlineError(FedAsiError):
    """The device's time for this round is over."""


@dataclass(slots=True)
class Largest:
    """The largest step so far, in bytes; loss: of the newest step, a scalar on the device of the network."""

    saved_bytes: int = 0
    published_bytes: int = 0
    loss: Tensor | float = float("nan")
    steps: int = 0


def training_mode_(model: nn.Module) -> None:
    """Set training mode, except for batch norm, dropout and stochastic depth: statistics stay, nothing is random."""
    model.train()
    for module in model.modules():
        still = isinstance(module, (BATCH_NORM, DROPOUT))
        if still or layers.original_class(module).__name__ == "StochasticDepth":
            module.eval()


class Stepper:
    """Performs a device's steps on its compressed tail, and checks each against the budget before anything moves.

    batch_size: of all batches but the last of an epoch, which may be smaller. Weights that move within a batch move by
    lr / batch_size for each image, in that one too; None: every batch counts as whole.
    budget_bytes: None is unlimited. covers: what the budget covers. deadline: time.monotonic().
    gradients_at: anything but "micro-batch" approximates weights that move within a batch, from the second step on. The
    first step is computed as the device does it, so that its bytes are counted.
    strategy_bytes: of the copies that strategy and codec hold besides the step. whole: counts the whole step, for a
    device with a RAM or flash limit.
    """

    def __init__(
        self,
        tail: nn.Module,
        optimizer: Sgd,
        *,
        micro_batch: int,
        batch_size: int | None = None,
        budget_bytes: int | None,
        covers: Covers = "saved",
        side_by_side: bool = True,
        update: Update = "step",
        gradients_at: GradientsAt = "micro-batch",
        deadline: float = float("inf"),
        strategy_bytes: int = 0,
        whole: WholeStep | None = None,
    ) -> None:
        self.tail, self.optimizer = tail, optimizer
        self.micro_batch, self.batch_size = micro_batch, batch_size
        self.budget_bytes, self.covers = budget_bytes, covers
        self.side_by_side, self.update, self.deadline = side_by_side, update, deadline
        self.gradients_at = gradients_at
        self.strategy_bytes = strategy_bytes
        self.whole = whole
        self.largest = Largest()
        self._at_once = AtOnce(tail, optimizer, in_blocks=False) if update == "layer" else None
        self._parts = Parts(tail, optimizer)
        if gradients_at != "micro-batch" and update == "layer" and optimizer.clip_norm is not None:
            _check_clipping(tail, optimizer)
        layers.remember_constants_(tail)
        self._meters: dict[tuple[int, int], ActivationMeter] = {}
        self._by_layer: dict[str, int] = {}

    def step_(self, x: Tensor, y: Tensor, lr: float) -> Tensor:
        """Return the mean loss of a batch after one optimizer step on it, a scalar that may still be being computed.

        x: (N, ...) features. y: (N,). Both on the device of the network.
        Raises OverBudgetError before the optimizer moves anything, DeadlineError when time is over,
        UnsupportedLayerError where a trained tensor gets no gradient.
        """
        if time.monotonic() > self.deadline:
            raise DeadlineError(f"past its deadline after {self.largest.steps} steps")
        if self.whole is not None:
            self.whole.count(self.tail, x, y, self.micro_batch)
        if self.update == "step":
            loss = self.accumulate(x, y, self.side_by_side)
            self._move(lr)
        elif self._approximates:
            loss = self._moving_seldom(x, y, lr)
        else:
            loss = self._moving_each_micro_batch(x, y, lr)
        self.largest.steps += 1
        self.largest.loss = loss
        return loss

    @property
    def _approximates(self) -> bool:
        """Whether the next step moves weights less often than its device does."""
        return self.gradients_at != "micro-batch" and self.side_by_side and self.largest.steps > 0

    def accumulate(self, x: Tensor, y: Tensor, side_by_side: bool) -> Tensor:
        """Return the mean loss of a batch, a scalar, whose gradient is added to the parameters' `.grad`."""
        total = torch.zeros((), device=x.device)
        for rows, count in _parts(len(y), self.micro_batch, side_by_side):
            # A view would keep the whole batch alive, and the meter would rightly count it.
            total += self._forward_backward(x[rows].clone(), y[rows].clone(), len(y), count)
        return total

    def _forward_backward(self, x: Tensor, y: Tensor, batch: int, micro_batches: int) -> Tensor:
        meter = self._meter(len(y), micro_batches)
        with self._parts.taken():
            with meter:
                loss = F.cross_entropy(self.tail(x.float()), y) * (len(y) / batch)
            self._hold_against_budget(meter, len(y) // micro_batches)
            torch.autograd.backward(loss)
        if self.largest.steps == 0:
            moved = set() if self._at_once is None else self._at_once.moved
            check_gradients(self.tail, self._parts.found | moved)
        return loss.detach()

    def _meter(self, samples: int, micro_batches: int) -> ActivationMeter:
        """Return a meter for a batch of that size; after the first step, one that only adds up."""
        key = (samples, micro_batches)
        known = self._meters.get(key)
        if known is not None and known.detailed:
            self._by_layer = known.by_layer
        if known is None or known.detailed:
            self._meters[key] = ActivationMeter(self.tail, micro_batches, detailed=known is None)
        return self._meters[key]

    def _hold_against_budget(self, meter: ActivationMeter, samples: int) -> None:
        largest = self.largest
        saved = meter.per_micro_batch_bytes
        published = -(-meter.published_bytes // int(meter.micro_batches))
        held = {"saved": saved, "published": published, "training": saved + self._training_bytes()}
        largest.saved_bytes = max(largest.saved_bytes, saved)
        largest.published_bytes = max(largest.published_bytes, published)
        if self.whole is not None and samples in self.whole.counted:
            self.whole.metered(samples, saved)
        if self.budget_bytes is not None and held[self.covers] > self.budget_bytes:
            by_layer = meter.by_layer if meter.detailed else self._by_layer
            biggest = sorted(by_layer.items(), key=lambda item: -item[1])[:3]
            shares = [(name, -(-size // int(meter.micro_batches))) for name, size in biggest]
            detail = ("largest: " if meter.detailed else "largest in the first step: ") + ", ".join(
                f"{name} {format_bytes(size)}" for name, size in shares
            )
            kept, budget = told_apart(held[self.covers], self.budget_bytes)
            text = f"out of memory: the step keeps {kept}, the budget is {budget} ({detail})"
            if self.covers == "training" and self.strategy_bytes:
                text += f", {format_bytes(self.strategy_bytes)} of it held by strategy and codec"
            raise OverBudgetError(text, held[self.covers])

    @property
    def accumulator_bytes(self) -> int:
        """Bytes of the gradients held from one micro-batch to the next; 0 if each micro-batch moves the weights.

        If layers move as soon as they can, those of the layer with the most whole gradients at one time.
        """
        if self._at_once is not None:
            return self._at_once.largest_bytes
        return 0 if self.update == "micro-batch" else self.optimizer.gradient_bytes

    def _training_bytes(self) -> int:
        momentum = self.optimizer.gradient_bytes if self.optimizer.momentum else 0
        return self.accumulator_bytes + momentum + self.strategy_bytes

    def _moving_each_micro_batch(self, x: Tensor, y: Tensor, lr: float) -> Tensor:
        """Step after each micro-batch, or within its backward pass, so that no gradients are held."""
        total = torch.zeros((), dtype=torch.float64, device=x.device)
        with nullcontext() if self._at_once is None else self._at_once.moving(lr):
            for rows, _ in _parts(len(y), self.micro_batch, side_by_side=False):
                part, labels = x[rows].clone(), y[rows].clone()
                share = len(labels) / len(y)
                rate = lr * self._share(len(labels), len(y))
                if self._at_once is not None:
                    self._at_once.begin(rate)
                total += share * self._forward_backward(part, labels, len(labels), 1).double()
                if self._at_once is None:
                    self._move(rate)
        return total

    def _moving_seldom(self, x: Tensor, y: Tensor, lr: float) -> Tensor:
        """Step after as many images as `gradients_at` says, whose micro-batches are computed side by side."""
        total = torch.zeros((), dtype=torch.float64, device=x.device)
        images = self.gradients_at if isinstance(self.gradients_at, int) else len(y)
        for part, labels in zip(
            *(torch.split(one, max(images, self.micro_batch)) for one in (x, y)), strict=True
        ):
            share = len(labels) / len(y)
            with self._clipped_apart(len(labels)):
                total += share * self.accumulate(part, labels, side_by_side=True).double()
                self._move(lr * self._share(len(labels), len(y)))
        return total

    def _share(self, images: int, batch: int) -> float:
        """Return the share of a batch's step that falls to so many of its images.

        An epoch's last batch may be small. If its images shared a whole step, each would move the weights many times
        as far as an image before it, and the round would end on them.
        """
        return images / max(batch, self.batch_size or batch)

    @contextmanager
    def _clipped_apart(self, images: int) -> Iterator[None]:
        """Let layers clip the gradient of each micro-batch of so many images, and nothing the sum of them."""
        limit = self.optimizer.clip_norm
        if limit is None:
            yield
            return
        states = [state for _, _, state in layers.compressed_layers(self.tail)]
        self.optimizer.clip_norm = None
        for state in states:
            state.clip = layers.Clip(limit, images, self.micro_batch)
        try:
            yield
        finally:
            self.optimizer.clip_norm = limit
            for state in states:
                state.clip = None

    def _move(self, lr: float) -> None:
        self.optimizer.step_(lr)


def _check_clipping(tail: nn.Module, optimizer: Sgd) -> None:
    """Raise UnsupportedLayerError where a gradient cannot be clipped micro-batch by micro-batch, side by side."""
    name = by_itself(tail, {name for name, _ in optimizer.parameters})
    if name is not None:
        raise UnsupportedLayerError(
            f"{name}: no compressed layer computes its gradient alone, so it cannot be clipped by micro-batch side by "
            'side; set compute.gradients_at = "micro-batch" or train.clip_norm = "off", or do not train it'
        )


def _parts(batch: int, micro_batch: int, side_by_side: bool) -> list[tuple[slice, int]]:
    """Return (rows, micro-batches in them): all full micro-batches together, then the smaller last one.

    The last one is separate so that the bytes the meter sees divide evenly.
    """
    size = min(micro_batch, batch)
    full = batch // size * size
    if side_by_side:
        parts = [(slice(0, full), full // size)]
    else:
        parts = [(slice(start, start + size), 1) for start in range(0, full, size)]
    return parts + ([(slice(full, batch), 1)] if full < batch else [])


@dataclass(frozen=True, slots=True)
class SideBySideCheck:
    """A comparison of one batch side by side with its micro-batches in sequence: bytes and gradients."""

    side_by_side_bytes: int
    sequential_bytes: int
    relative_difference: float

    @property
    def agrees(self) -> bool:
        """Whether the simulated step equals the real one: equal bytes, and gradients equal to rounding.

        The loss keeps one scalar a batch, so side by side a micro-batch has a share of it: a few bytes. Basis vectors
        beyond the rank of a micro-batch are noise, which rounding can turn: differences up to 1e-4 have been seen in
        float32.
        """
        apart = abs(self.side_by_side_bytes - self.sequential_bytes)
        return apart <= SCALARS and self.relative_difference < GRADIENTS


def compare(stepper: Stepper, x: Tensor, y: Tensor) -> SideBySideCheck:
    """Return how a side-by-side step compares with a sequential one; weights and factors do not change."""
    found: list[tuple[int, list[Tensor]]] = []
    for side_by_side in (True, False):
        stepper.largest = Largest()
        stepper.accumulate(x, y, side_by_side)
        grads = [gradient.clone() for gradient in stepper.optimizer.gradients().values()]
        found.append((stepper.largest.saved_bytes, grads))
        stepper.optimizer.drop_gradients_()
    stepper.largest = Largest()
    (bytes_one, ours), (bytes_two, theirs) = found
    difference = sum(float((a - b).double().square().sum()) for a, b in zip(ours, theirs, strict=True))
    scale = sum(float(b.double().square().sum()) for b in theirs)
    return SideBySideCheck(bytes_one, bytes_two, (difference / max(scale, 1e-30)) ** 0.5)
