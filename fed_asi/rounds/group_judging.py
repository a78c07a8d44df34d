"""How good the shared model is for each group of devices: on all images that its devices hold back.

A function of the weights and the shards alone, whoever trained: no device is asked, as the simulation has the images.
Groups hold different images, so two groups' numbers say nothing of their budgets; one group's, over rounds, does.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fed_asi.fleets.fleet import Device, Fleet
from fed_asi.machine import cpus_here
from fed_asi.results.schema import GroupRoundRecord
from fed_asi.training.evaluation import judge
from fed_asi.workplace.place import Workplace


def judge_groups(place: Workplace, fleet: Fleet, round: int) -> list[GroupRoundRecord]:
    """Return a record a group whose devices hold images back, of the weights that the place's tail has now."""
    found = (_judged(place, round, name, devices) for name, devices in fleet.groups().items())
    return [record for record in found if record is not None]


@dataclass(frozen=True, slots=True)
class _Picked:
    """The tail's inputs of some rows, a slice at a time: all of them at once may not fit in memory."""

    place: Workplace
    rows: Tensor

    def __getitem__(self, rows: slice, /) -> Tensor:
        return self.place.inputs(self.rows[rows])


def _judged(place: Workplace, round: int, name: str, devices: Sequence[Device]) -> GroupRoundRecord | None:
    held = [torch.from_numpy(place.shard(device.partition_id).holdout) for device in devices]
    held = [rows for rows in held if len(rows)]
    if not held:
        return None
    rows = torch.cat(held)
    place.need(rows.numpy())  # all at once, rather than a slice after another
    loss, right = judge(place.tail, _Picked(place, rows), place.labels[rows], workers=cpus_here())
    each = torch.stack([hits.double().mean() for hits in torch.split(right, [len(one) for one in held])])
    return GroupRoundRecord(
        round=round,
        group_name=name,
        devices=len(held),
        num_examples=len(rows),
        loss=loss,
        accuracy=float(right.double().mean()),
        device_accuracy=float(each.mean()),
        device_accuracy_error=float(each.std()) / math.sqrt(len(each)) if len(each) > 1 else None,
    )
