"""The sums of the federated calibration as the server expects them: names, lengths and bounds, for each device.

Where bytes follow from shapes alone, a device's numbers are not trusted: one that claimed more would leave no plan for
the whole fleet.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fed_asi.devices.calibration import COLUMNS, IMAGES, SPECTRA, blank_records, forms_of
from fed_asi.errors import UpdateError
from fed_asi.methods import Method
from fed_asi.planning.recording import Record
from fed_asi.planning.trials import counted_bytes
from fed_asi.workplace.place import Workplace

LARGEST = 1e30  # sums of many such numbers, and the float32 means made of them, stay finite


Bounds = tuple[Tensor, Tensor]  # the lowest and the highest of each number of a vector, float64


@dataclass(frozen=True, slots=True)
class Expected:
    """What devices must send in one pass. trials: in the second pass, the bounds by layer and micro-batch."""

    place: Workplace
    phase: str
    pooled: Mapping[str, Tensor]
    blank: Sequence[Record]
    trials: Mapping[str, Bounds]

    @classmethod
    def of(cls, place: Workplace, phase: str, pooled: Mapping[str, Tensor]) -> Expected:
        """Return what is expected in a pass of this run. pooled: in the second pass, sums of the first."""
        blank = blank_records(place)
        trials = {}
        for item in blank if phase != SPECTRA else ():
            for size in place.plans.profile.micro_batches:
                if f"{item.name} {size} 0" in pooled:
                    forms = [method for method, _ in forms_of(place, item, size, pooled)]
                    trials[f"{item.name} {size}"] = _bounds(item, size, forms)
        return cls(place, phase, pooled, blank, trials)

    def images(self, partition_id: int) -> int:
        """Return how many images a device calibrates on."""
        return min(len(self.place.shard(partition_id).train), self.place.config.method.calibration_images)

    def vectors(self, partition_id: int) -> dict[str, Bounds]:
        """Return the bounds of every vector that a device sends, by name."""
        count = self.images(partition_id)
        sizes = [size for size in self.place.plans.profile.micro_batches if size <= count]
        images = torch.tensor([float(count)], dtype=torch.float64)
        found = {IMAGES: (images, images)}
        for item in self.blank:
            found |= self._spectra(item, sizes) if self.phase == SPECTRA else self._trials(item, sizes)
        return found

    def _spectra(self, item: Record, sizes: Sequence[int]) -> dict[str, Bounds]:
        modes = tuple(item.canonical().shape[1:])
        found = {f"{item.name} channels": _between(-LARGEST, LARGEST, modes[0])}
        for size in sizes:
            for mode, length in enumerate((size, *modes)):
                found[f"{item.name} {size} {mode}"] = _between(0.0, LARGEST, length)
        return found

    def _trials(self, item: Record, sizes: Sequence[int]) -> dict[str, Bounds]:
        tried = {f"{item.name} {size}": self.trials[f"{item.name} {size}"] for size in sizes}
        channels = item.canonical().shape[1]
        return {
            f"{item.name} energies": _between(0.0, LARGEST, 3),
            f"{item.name} channel energies": _between(0.0, LARGEST, channels),
            **tried,
        }

    def check(self, partition_id: int, sums: Mapping[str, Tensor]) -> None:
        """Raise UpdateError unless a device's sums may be added to the others'.

        The error names the first vector that is missing, surplus, of another length or type, or out of bounds.
        """
        wanted = self.vectors(partition_id)
        for name in sorted(set(wanted) ^ set(sums)):
            raise UpdateError(f"{'missing' if name in wanted else 'surplus'} vector {name}")
        for name in sorted(sums):
            _check_vector(name, sums[name], wanted[name])


def _between(lowest: float, highest: float, length: int) -> Bounds:
    return (
        torch.full((length,), lowest, dtype=torch.float64),
        torch.full((length,), highest, dtype=torch.float64),
    )


def _bounds(item: Record, size: int, forms: Sequence[Method]) -> Bounds:
    """Return the bounds of the numbers that a device sends for the forms it tried: COLUMNS for each."""
    spans = [(*_bytes(item, size, method), 0.0, LARGEST, -LARGEST, LARGEST) for method in forms]
    bounds = torch.tensor(spans, dtype=torch.float64).view(-1, COLUMNS, 2)
    return bounds[..., 0].flatten(), bounds[..., 1].flatten()


def _bytes(item: Record, size: int, method: Method) -> tuple[float, float, float, float]:
    """Return the least and the most bytes that a form may keep, and the same for the papers' count.

    For a form that the layer cannot take, devices send -1 and 0.
    """
    if item.kind.unsupported(item.module, method) is not None:
        return -1.0, -1.0, 0.0, 0.0
    most, published = (float(n) for n in counted_bytes(item, method, size))
    return (most, most, published, published) if method.sized else (0.0, most, 0.0, published)


def _check_vector(name: str, vector: Tensor, bounds: Bounds) -> None:
    lowest, highest = bounds
    if vector.layout is not torch.strided or vector.dtype != torch.float64 or vector.shape != lowest.shape:
        is_now = f"{vector.dtype} of shape {tuple(vector.shape)}"
        raise UpdateError(f"{name} is {is_now}, not torch.float64 of {tuple(lowest.shape)}")
    within = (lowest <= vector) & (vector <= highest)  # false for NaN, too
    if not bool(within.all()):
        at = int(within.logical_not().nonzero()[0])
        span = f"{float(lowest[at]):g} to {float(highest[at]):g}"
        raise UpdateError(f"{name} holds {float(vector[at]):g} at {at}, and may hold {span}")
