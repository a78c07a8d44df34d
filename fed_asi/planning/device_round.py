"""A device's round as the planner needs it: a sum over layers of each form's cost, plus a rest.

The clock counts a whole round of a whole plan. A step's work is a sum over layers once it is known which layers compute
an input gradient, and that follows from the first trained layer: every layer after it does. So the cost of a form is
the cost of a network with that layer alone.

In a network with parallel branches, a layer may come after layers that can train but not after the first one that does.
Its gradient is counted even if none of the others trains, so a plan may be quicker than predicted, never slower.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from fed_asi.errors import ConfigError
from fed_asi.fleets.clock import Spent, Task, spent
from fed_asi.fleets.hardware import Hardware
from fed_asi.memory.work import Layer, Network, Work
from fed_asi.methods import BiasOnly, Method
from fed_asi.planning.duty import Duty
from fed_asi.planning.gauge import Gauge

_Key = tuple[str, Method, int, tuple[bool, ...]]
_EMPTY = Network(())


@dataclass(frozen=True, slots=True)
class DeviceRound:
    """A device's round under any plan. hardware: None or without rates, if the device has no clock.

    trunk, tail: the sizes of the frozen and of the trained part. Counts are remembered.
    """

    trunk: Network
    tail: Network
    duty: Duty
    hardware: Hardware | None = None
    _layers: dict[str, tuple[Layer, ...]] = field(default_factory=dict)
    _forms: dict[_Key, tuple[Work, int]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Raise ConfigError for a round without a step."""
        if not self.duty.batches:
            raise ConfigError("a round without a step takes no plan")

    @property
    def has_clock(self) -> bool:
        """Whether the device's seconds are known."""
        return self.hardware is not None and self.hardware.has_clock

    def gauge(self, unit: str) -> Gauge:
        """Return prices in seconds, joules or multiply-accumulates. Raises ConfigError if they are not known."""
        if unit == "multiply-accumulates":
            return Gauge.macs()
        hardware = self._clocked()
        prices = Gauge.seconds if unit == "seconds" else Gauge.joules
        return prices(hardware, self.duty.down_bytes)

    def task(self, methods: Mapping[str, Method], micro_batch: int) -> Task:
        """Return the whole round under a plan's methods."""
        return self.duty.task(self.trunk, self.tail, methods, micro_batch)

    def spent(self, methods: Mapping[str, Method], micro_batch: int) -> Spent:
        """Return the time and energy of a round, by the clock. Raises ConfigError if the device has none."""
        return spent(self.task(methods, micro_batch), self._clocked())

    def form(self, name: str, method: Method, micro_batch: int, trains: Sequence[str]) -> tuple[Work, int]:
        """Return what one layer in a form adds to a round: the work of all steps, and the bytes of the reply.

        trains: the layers that may train, with or without this one; every layer after one of them has a gradient.
        """
        others = frozenset(trains) - {name}
        parts = self._calls(name)
        key = (name, method, micro_batch, tuple(not others.isdisjoint(part.after) for part in parts))
        if key not in self._forms:
            before: dict[str, Method] = dict.fromkeys(others, BiasOnly())
            alone, own = Network(parts), {name: method}
            work = self.duty.stepped(alone, before | own, micro_batch)
            spare = self.duty.stepped(_EMPTY, before, micro_batch)  # the loss, and other layers' updates
            self._forms[key] = _less(work, spare), self.duty.up_bytes(alone, own)
        return self._forms[key]

    def _calls(self, name: str) -> tuple[Layer, ...]:
        if not self._layers:
            for part in self.tail.layers:
                self._layers[part.name] = (*self._layers.get(part.name, ()), part)
        return self._layers.get(name, ())

    def rest(self, micro_batch: int, trains: Sequence[str], names: Sequence[str]) -> Work:
        """Return the work of everything but the layers `names`: trunk, evaluation, and all parts that cannot train."""
        left = tuple(p for p in self.tail.parts if not (isinstance(p, Layer) and p.name in set(names)))
        steps = Duty(self.duty.batches, each=self.duty.each, twice=self.duty.twice)
        methods: dict[str, Method] = dict.fromkeys(trains, BiasOnly())
        work = steps.stepped(Network(left), methods, micro_batch)
        updates = _less(steps.stepped(_EMPTY, methods, micro_batch), steps.stepped(_EMPTY, {}, micro_batch))
        judging = self.duty.judged(self.trunk, self.tail, micro_batch)
        return _sum(_less(work, updates), self.duty.passed(self.trunk, micro_batch), judging)

    def _clocked(self) -> Hardware:
        if self.hardware is None:
            raise ConfigError("a device without rates has no clock; name a preset, or give its rates")
        return self.hardware


def _less(work: Work, other: Work) -> Work:
    return Work(*(a - b for a, b in zip(work, other, strict=True)))


def _sum(*works: Work) -> Work:
    return Work(*map(sum, zip(*works, strict=True)))
