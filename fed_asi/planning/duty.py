"""What a device does in a round beside its plan: which steps, on how many images, what it judges and what it sends."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from math import prod

from fed_asi.fleets.clock import Task
from fed_asi.memory.work import FLOAT_BYTES, Network, Shape, Work, total
from fed_asi.methods import Method


def whole_tensor(shape: Shape) -> int:
    """Return the bytes of a tensor that is sent as it is."""
    return FLOAT_BYTES * prod(shape)


@dataclass(frozen=True, slots=True)
class Duty:
    """A round, whatever the plan.

    batches: images of an optimizer step -> how many such steps. held: images judged before and after. down_bytes: what
    is sent to the device; up: bytes of a trained tensor's reply, by its shape. each: whether weights move after every
    micro-batch. twice: whether the forward is computed again for the backward.
    """

    batches: Mapping[int, int]
    held: int = 0
    down_bytes: int = 0
    up: Callable[[Shape], int] = field(default=whole_tensor)
    each: bool = False
    twice: bool = False

    def passed(self, trunk: Network, micro_batch: int) -> Work:
        """Return the work of all images through the frozen trunk."""
        return total(trunk.forward(size).times(count) for size, count in self.sizes(micro_batch))

    def stepped(self, network: Network, methods: Mapping[str, Method], micro_batch: int) -> Work:
        """Return the work of all optimizer steps."""
        steps = total(
            network.step(size, methods, twice=self.twice).times(count)
            for size, count in self.sizes(micro_batch)
        )
        return total([steps, network.update(methods).times(self.updates(micro_batch))])

    def judged(self, trunk: Network, tail: Network, micro_batch: int) -> Work:
        """Return the work of judging the images held back, before training and after it."""
        parts = micro_batches(self.held, micro_batch)
        return total(
            total([trunk.forward(size), tail.forward(size)]).times(2 * count) for size, count in parts
        )

    def up_bytes(self, network: Network, methods: Mapping[str, Method]) -> int:
        """Return the bytes of a reply."""
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
        """Return (images, how many such micro-batches) of all steps together."""
        found: dict[int, int] = {}
        for batch, steps in self.batches.items():
            for size, count in micro_batches(batch, micro_batch):
                found[size] = found.get(size, 0) + steps * count
        return list(found.items())

    def updates(self, micro_batch: int) -> int:
        """Return how often weights move."""
        if self.each:
            return sum(count for _, count in self.sizes(micro_batch))
        return sum(self.batches.values())


def micro_batches(images: int, size: int) -> list[tuple[int, int]]:
    """Return (images, how many such micro-batches): the full ones, and the smaller last one."""
    count, rest = divmod(images, min(size, images) or 1)
    return [(min(size, images), count)] * (count > 0) + [(rest, 1)] * (rest > 0)
