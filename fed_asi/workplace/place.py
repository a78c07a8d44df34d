"""What training needs at one place: the trained tail, its inputs, labels, shards and plans.

The server prepares it once under runs/NAME/workplace/. Every worker process opens it once and keeps it open, so a
message carries only the trained tensors and a small job. Large arrays are memory-mapped and shared.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, fx

from fed_asi import models
from fed_asi.data.images import to_batch
from fed_asi.data.rows_ahead import RowsAhead
from fed_asi.data.shards import Shards
from fed_asi.errors import RunError
from fed_asi.fleets.config import RunConfig
from fed_asi.gpus import CPU, device_of, sent
from fed_asi.planning.device_plans import DevicePlans
from fed_asi.workplace.placing import kept_there, room_bytes
from fed_asi.workplace.shard import Rows, Shard, shard_of


@dataclass(frozen=True, slots=True)
class WholeNetwork:
    """Stands in for stored features if they are off: the trunk, and the images that it computes each time."""

    trunk: fx.GraphModule
    images: NDArray[np.uint8]
    config: RunConfig

    def inputs(self, rows: Tensor, device: torch.device) -> Tensor:
        """Return the trunk's output for these rows, on a device."""
        mean, std = models.normalisation(self.config.model.name)
        with torch.inference_mode():
            batch = to_batch(self.images[rows.numpy()], self.config.model.resolution, mean, std)
            found: Tensor = self.trunk(sent(batch, device_of(self.trunk)))
        return sent(found.clone(), device)


@dataclass(frozen=True, slots=True)
class Workplace:
    """Everything that `train_locally` and the server's evaluation need; opened once a process.

    tail: the trained part, shared by all work in this process, one job at a time. features: (N, ...) of the
    training images; test_features: of the server's test images. reference: initial values of every tensor
    that some device may train, by name. notes: for the report. whole: set if features are off.
    own_plans: plans from other profiles than the server's, by file name. kept: a cache for whatever else is made once.
    device: where the tail is and steps compute; features and their labels are there too, or on the CPU.
    bring: makes rows of features available, from the machine that has the workplace (afar.py) or by computing them;
    None: all are here. fetch: fetches a file from that machine; None: it is here. ahead: computes features beside the
    rounds, in the run's own process. resolutions: of every device, by partition_id; None: all train at the model's.
    views: the same workplace at each of the others.
    """

    config: RunConfig
    folder: Path
    num_classes: int
    tail: fx.GraphModule
    features: Tensor | None
    labels: Tensor
    test_features: Tensor
    test_labels: Tensor
    shards: Shards
    plans: DevicePlans
    reference: Mapping[str, Tensor]
    notes: tuple[str, ...] = ()
    whole: WholeNetwork | None = None
    own_plans: dict[str, DevicePlans] = field(default_factory=dict)
    kept: dict[str, Any] = field(default_factory=dict)
    device: torch.device = CPU
    bring: Callable[[Tensor], None] | None = None
    fetch: Callable[[str], None] | None = None
    resolutions: NDArray[np.int16] | None = None
    views: Mapping[int, Workplace] = field(default_factory=dict)
    ahead: RowsAhead | None = None

    def seen_by(self, partition_id: int) -> Workplace:
        """Return the workplace at a device's resolution: its own settings, features and plans, one tail for all."""
        if self.resolutions is None:
            return self
        return self.views.get(int(self.resolutions[partition_id]), self)

    @property
    def resolution(self) -> int:
        """Pixels, high and wide, of the images that go into the trunk here."""
        return self.config.model.resolution

    def file(self, name: str) -> Path:
        """Return the path of a file that was written after the workplace was opened, fetched first if need be."""
        if self.fetch is not None:
            self.fetch(name)
        return self.folder / name

    def shard(self, partition_id: int) -> Shard:
        """Return a device's rows; the held-out rows are drawn once, and at least one row is left for training."""
        return shard_of(self.config, self.shards, partition_id)

    def need(self, rows: Rows) -> None:
        """Return once the features of these rows are here. Raises RunError where they cannot be."""
        if self.bring is not None:
            self.bring(torch.from_numpy(rows))

    def need_of(self, partition_ids: Iterable[int]) -> None:
        """Return once the features of these devices' images are here, each at its device's resolution.

        Raises RunError where they cannot be.
        """
        held = dict[int, list[Rows]]()  # by resolution
        for one in partition_ids:
            held.setdefault(self.seen_by(one).resolution, []).append(self.shards[one])
        for pixels, rows in held.items():
            self.views.get(pixels, self).need(np.concatenate(rows))

    @contextmanager
    def going_on(self) -> Iterator[None]:
        """Compute features beside the rounds of the block, with what these leave of the machine, until it ends."""
        try:
            if self.ahead is not None:
                self.ahead.yield_to_others()
            yield
        finally:
            if self.ahead is not None:
                self.ahead.close()

    def on(self, device: torch.device) -> Workplace:
        """Return the same workplace on a device: its network is moved, with as many features as fit."""
        if device == self.device:
            return self
        room = room_bytes(self.config, device)
        every = [self, *self.views.values()]
        # Rows that are yet to come stay where they come to.
        coming = [None if one.bring is not None else one.features for one in every]
        features, tests, *others = kept_there((coming[0], self.test_features, *coming[1:]), device, room)
        here = [one._on(device, there) for one, there in zip(every, (features, *others), strict=True)]
        own = replace(here[0], views=dict(zip(self.views, here[1:], strict=True)))
        return own if tests is None else replace(own, test_features=tests)

    def _on(self, device: torch.device, features: Tensor | None) -> Workplace:
        """Return this resolution alone on a device. features: those that fit there; None: they stay."""
        features = self.features if features is None else features
        whole = self.whole
        if whole is not None and self.config.storage.form != "int8":  # see trunk_device
            whole = replace(whole, trunk=whole.trunk.to(device))
        return replace(
            self,
            tail=self.tail.to(device),
            features=features,
            labels=self.labels.to(CPU if features is None else features.device),
            whole=whole,
            device=device,
        )

    def rows(self, numbers: Rows) -> Tensor:
        """Return row numbers as a tensor on the device where labels and features are looked up."""
        return sent(torch.from_numpy(numbers), self.labels.device)

    def batch(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Return the tail's inputs of these rows, and their labels, on the device."""
        return self.inputs(rows), sent(self.labels[rows], self.device)

    def inputs(self, rows: Tensor) -> Tensor:
        """Return the tail's inputs for these rows, float32, copied; images are channels last, which is quicker."""
        if self.bring is not None:
            self.bring(rows)
        if self.features is not None:
            found = sent(self.features[rows], self.device).float()
        elif self.whole is not None:
            found = self.whole.inputs(rows, self.device)
        else:
            raise RunError(f"{self.folder} has neither features nor images")
        return found.contiguous(memory_format=torch.channels_last) if found.dim() == 4 else found
