"""A device's part of a round: a pure function of its plan, the size of its shard, and its batch.

In every epoch each training image goes through the trunk once, then through the tail's step, in micro-batches one
after another. The images kept for local accuracy are judged before and after. Where the simulation takes shortcuts
(features computed once, micro-batches side by side), the device's own work is counted, not the simulation's.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from fed_asi.devices.exchange import Exchange
from fed_asi.fleets.clock import Task
from fed_asi.fleets.config import RunConfig
from fed_asi.fleets.resources import Resources
from fed_asi.memory.work import Network, Shape, Work, total
from fed_asi.methods import Method
from fed_asi.planning.duty import Duty, micro_batches, whole_tensor
from fed_asi.planning.plan import Plan

_Methods = frozenset[tuple[str, Method]]


@dataclass(frozen=True, slots=True)
class Images:
    """How many images a device trains on, and how many it keeps for local accuracy."""

    train: int
    held: int


@dataclass(slots=True)
class Tasks:
    """Makes the tasks of a run. down_bytes: of the tensors that every device gets. Counts are cached."""

    config: RunConfig
    trunk: Network
    tail: Network
    down_bytes: int
    exchange: Exchange = field(init=False)
    _trunk: dict[int, Work] = field(default_factory=dict)
    _judging: dict[int, Work] = field(default_factory=dict)
    _steps: dict[tuple[_Methods, int], Work] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.exchange = Exchange.of(self.config)

    def task(self, plan: Plan, resources: Resources, images: Images, steps: int | None = None) -> Task:
        """Return what a device does. steps: the number of steps; None: all of its epochs."""
        batches = self.batches(resources, images, steps)
        micro = plan.micro_batch
        return Task(
            self.down_bytes,
            total(self._passed(size, micro).times(count) for size, count in batches.items()),
            total(self._stepped(plan, size).times(count) for size, count in batches.items()),
            self.judged(micro, images),
            self.up_bytes(plan),
        )

    def first_step(self, plan: Plan, resources: Resources, images: Images) -> Task:
        """Return the work of a device that finds in its first step that the plan keeps more than it has."""
        size = min(resources.batch_size, images.train)
        held = self.judged(plan.micro_batch, Images(0, images.held))
        return Task(0, self._passed(size, plan.micro_batch), self._stepped(plan, size), held, 0)

    def steps(self, resources: Resources, images: Images) -> int:
        """Return the optimizer steps of a round."""
        return -(-images.train // resources.batch_size) * self.config.train.epochs

    def batches(self, resources: Resources, images: Images, steps: int | None = None) -> dict[int, int]:
        """Return the number of optimizer steps by batch size: the full ones, and the smaller last one of each epoch.

        steps: count only the first of them; None: all.
        """
        full, rest = divmod(images.train, resources.batch_size)
        an_epoch = full + (rest > 0)
        epochs, begun = divmod(self.steps(resources, images) if steps is None else steps, max(1, an_epoch))
        found = {resources.batch_size: epochs * full + begun, rest: epochs * (rest > 0)}
        return {size: count for size, count in found.items() if size and count}

    def duty(self, resources: Resources, images: Images) -> Duty:
        """Return a device's round, whatever its plan."""
        each, twice = self.config.train.updates[0] != "step", self.config.method.recipe.recomputes
        return Duty(
            self.batches(resources, images), images.held, self.down_bytes, self.sent_bytes, each, twice
        )

    def up_bytes(self, plan: Plan) -> int:
        """Return the bytes of the tensors that a device sends back."""
        return sum(self.sent_bytes(shape) for shape in self.tail.trained_shapes(plan.methods))

    def sent_bytes(self, shape: Shape) -> int:
        """Return the bytes of a trained tensor as the codec encodes it, with what the strategy adds."""
        codec, extras = self.exchange.codec, len(self.exchange.strategy.extras)
        whole = whole_tensor(shape)
        written = whole if codec.whole else sum(one.nbytes for one in codec.pieces(shape).values())
        return written + extras * whole

    def judged(self, micro_batch: int, images: Images) -> Work:
        """Return the work of judging the held-out images, before training and after it."""
        parts = micro_batches(images.held, micro_batch)
        return total(self._judge(size).times(2 * count) for size, count in parts)

    def _passed(self, size: int, micro_batch: int) -> Work:
        parts = micro_batches(size, micro_batch)
        return total(self._forward(one).times(count) for one, count in parts)

    def _stepped(self, plan: Plan, size: int) -> Work:
        parts = micro_batches(size, plan.micro_batch)
        update = plan.update or self.config.train.updates[0]
        updates = 1 if update == "step" else sum(count for _, count in parts)
        steps = total(self._step(plan, one).times(count) for one, count in parts)
        return total([steps, self.tail.update(plan.methods).times(updates)])

    def _forward(self, size: int) -> Work:
        if size not in self._trunk:
            self._trunk[size] = self.trunk.forward(size)
        return self._trunk[size]

    def _judge(self, size: int) -> Work:
        if size not in self._judging:
            self._judging[size] = total([self.trunk.forward(size), self.tail.forward(size)])
        return self._judging[size]

    def _step(self, plan: Plan, size: int) -> Work:
        key = (frozenset(plan.methods.items()), size)
        if key not in self._steps:
            twice = self.config.method.recipe.recomputes
            self._steps[key] = self.tail.step(size, plan.methods, twice=twice)
        return self._steps[key]
