"""The whole step of a device checked against its RAM and flash: counted by the arena, at least what the meter saw."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from torch import Tensor, nn

from fed_asi.errors import OverRamError
from fed_asi.memory.device import DeviceMemory
from fed_asi.planning.bench import Bench
from fed_asi.planning.within import Within, needs
from fed_asi.units import told_apart

SCALARS = 16  # bytes: the loss and its share of a batch, which the meter sees


@dataclass(slots=True)
class WholeStep:
    """A device's steps, counted before the first one of each micro-batch size runs.

    beyond: by that size, bytes that the meter saw and the arena's trace did not.
    """

    bench: Bench
    within: Within
    counted: dict[int, DeviceMemory] = field(default_factory=dict)
    beyond: dict[int, int] = field(default_factory=dict)

    def count(self, model: nn.Module, x: Tensor, y: Tensor, micro_batch: int) -> None:
        """Check the micro-batches of a batch against the device. Raises OverRamError before anything moves.

        model: compressed as it trains; only read. x: (N, ...) its input. y: (N,).
        """
        for size in {min(micro_batch, len(y)), len(y) % micro_batch} - {0, *self.counted}:
            self.counted[size] = self.bench.count(model, x[:size].float(), y[:size])
            self._hold(size)

    def metered(self, size: int, saved_bytes: int) -> None:
        """Check what the meter saw of a micro-batch of this size against the device, if it is more than counted."""
        more = saved_bytes - self.counted[size].step.saved_bytes
        if more > max(SCALARS, self.beyond.get(size, 0)):
            self.beyond[size] = more
            self._hold(size)

    @property
    def ram_bytes(self) -> int:
        """RAM of the largest step so far, its reserve included."""
        return max((self._ram(size) for size in self.counted), default=0)

    @property
    def flash_bytes(self) -> int:
        """Flash of the largest step so far."""
        return max((one.flash_bytes for one in self.counted.values()), default=0)

    def _ram(self, size: int) -> int:
        return self.counted[size].ram_bytes + self.within.reserve_bytes + self.beyond.get(size, 0)

    def _hold(self, size: int) -> None:
        within, ram = self.within, self._ram(size)
        memory = replace(self.counted[size], reserve_bytes=within.reserve_bytes)
        over = []
        if within.ram_bytes is not None and ram > within.ram_bytes:
            over.append("{} of RAM, and the device has {}".format(*told_apart(ram, within.ram_bytes)))
        if within.flash_bytes is not None and memory.flash_bytes > within.flash_bytes:
            both = told_apart(memory.flash_bytes, within.flash_bytes)
            over.append("{} of flash, and the device has {}".format(*both))
        if over:
            text = f"out of memory: the step needs {' and '.join(over)}. {needs(memory)}"
            raise OverRamError(text, memory.step.saved_bytes, ram, memory.flash_bytes)
