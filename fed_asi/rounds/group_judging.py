"""Accuracy of the shared model for each group of devices: on all images that its devices hold out.

It depends only on the weights and the shards, not on who trained: no device is asked, as the simulation has the
images. Every device's images are seen at the resolution at which it trains. Groups hold different images, so a
comparison of two groups says nothing about their budgets; one group over rounds does.
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
    """The tail's inputs of some rows, a slice at a time: all of them at once may not fit in memory.

    place: at the resolution at which the rows' devices see them.
    """

    place: Workplace
    rows: Tensor

    def __getitem__(self, rows: slice, /) -> Tensor:
        return self.place.inputs(self.rows[rows])


def _judged(place: Workplace, round: int, name: str, devices: Sequence[Device]) -> GroupRoundRecord | None:
    held = dict[int, list[Tensor]]()  # by resolution
    for device in devices:
        rows = torch.from_numpy(place.shard(device.partition_id).holdout)
        if len(rows):
            held.setdefault(place.seen_by(device.partition_id).resolution, []).append(rows)
    if not held:
        return None
    found = [_judged_at(place.views.get(pixels, place), every) for pixels, every in held.items()]
    count = sum(len(one.right) for one in found)
    right, each = torch.cat([one.right for one in found]), torch.cat([one.each for one in found])
    return GroupRoundRecord(
        round=round,
        group_name=name,
        devices=len(each),
        num_examples=count,
        loss=sum(one.loss * len(one.right) for one in found) / count if len(found) > 1 else found[0].loss,
        accuracy=float(right.double().mean()),
        device_accuracy=float(each.mean()),
        device_accuracy_error=float(each.std()) / math.sqrt(len(each)) if len(each) > 1 else None,
    )


@dataclass(frozen=True, slots=True)
class _Judged:
    """The mean loss over the images of some devices, which are right, and each device's accuracy."""

    loss: float
    right: Tensor
    each: Tensor


def _judged_at(place: Workplace, held: Sequence[Tensor]) -> _Judged:
    rows = torch.cat([*held])
    place.need(rows.numpy())  # all at once, not slice by slice
    loss, right = judge(place.tail, _Picked(place, rows), place.labels[rows], workers=cpus_here())
    each = torch.stack([hits.double().mean() for hits in torch.split(right, [len(one) for one in held])])
    return _Judged(loss, right, each)
