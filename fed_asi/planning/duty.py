"""What a device does in a round whatever its plan: its steps and their images, its evaluation, and what it sends."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from math import prod

from fed_asi.fleets.clock import Task
from fed_asi.memory.work import FLOAT_BYTES, Network, Shape, Work, total
from fed_asi.methods import Method


def whole_tensor(shape: Shape) -> int:
    """Return the bytes of a tensor that is sent uncompressed."""
    return FLOAT_BYTES * prod(shape)


@dataclass(frozen=True, slots=True)
class Duty:
    """A device's round, apart from the plan.

    batches: images in an optimizer step -> number of such steps. held: images held out, evaluated before and after
    training. down_bytes: sent to the device. up: bytes sent back for a trained tensor of a given shape. each: whether
    weights move after every micro-batch. twice: whether the backward computes the forward again.
    """

    batches: Mapping[int, int]
    held: int = 0
    down_bytes: int = 0
    up: Callable[[Shape], int] = field(default=whole_tensor)
    each: bool = False
    twice: bool = False

    def passed(self, trunk: Network, micro_batch: int) -> Work:
        """Return the work of passing all images through the frozen trunk."""
        return total(trunk.forward(size).times(count) for size, count in self.sizes(micro_batch))

    def stepped(self, network: Network, methods: Mapping[str, Method], micro_batch: int) -> Work:
        """Return the work of all optimizer steps."""
        steps = total(
            network.step(size, methods, twice=self.twice).times(count)
            for size, count in self.sizes(micro_batch)
        )
        return total([steps, network.update(methods).times(self.updates(micro_batch))])

    def judged(self, trunk: Network, tail: Network, micro_batch: int) -> Work:
        """Return the work of evaluating the held-out images, before and after training."""
        parts = micro_batches(self.held, micro_batch)
        return total(
            total([trunk.forward(size), tail.forward(size)]).times(2 * count) for size, count in parts
        )

    def up_bytes(self, network: Network, methods: Mapping[str, Method]) -> int:
        """Return the bytes that the device sends back."""
        return sum(self.up(shape) for shape in network.trained_shapes(methods))

    def task(self, trunk: Network, tail: Network, methods: Mapping[str, Method], micro_batch: int) -> Task:
        """Return the whole round under a plan's methods."""
        return Task(
            self.down_bytes,
            self.passed(trunk, micro_batch),
            self.stepped(tail, methods, micro_batch),
            self.judged(trunk, tail, micro_batch),
            self.up_bytes(tail, methods),
        )

    def sizes(self, micro_batch: int) -> list[tuple[int, int]]:
        """Return (images, number of such micro-batches) over all steps."""
        found: dict[int, int] = {}
        for batch, steps in self.batches.items():
            for size, count in micro_batches(batch, micro_batch):
                found[size] = found.get(size, 0) + steps * count
        return list(found.items())

    def updates(self, micro_batch: int) -> int:
        """Return how many times the weights move."""
        if self.each:
            return sum(count for _, count in self.sizes(micro_batch))
        return sum(self.batches.values())


def micro_batches(images: int, size: int) -> list[tuple[int, int]]:
    """Return (images, number of such micro-batches): the full ones, then the smaller last one."""
    count, rest = divmod(images, min(size, images) or 1)
    return [(min(size, images), count)] * (count > 0) + [(rest, 1)] * (rest > 0)
