"""What twins and evaluated groups add to a made-up run (made_run.py)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from fed_asi.results.schema import DeviceRoundRecord, GroupRoundRecord
from fed_asi.results.store import RunStore


def lost(row: DeviceRoundRecord) -> float:
    """What a device loses to its twin: as if each device were a little different, in every round the same."""
    return 0.01 * (1 + row.partition_id % 3)


def with_twins(folder: Path, loss: Callable[[DeviceRoundRecord], float] = lost) -> Path:
    """Give a run's devices twins, which are better by `loss`; a device left out stays at an accuracy of 0.5."""
    with RunStore.open(folder) as store:
        for record in store.rounds():
            rows = [_twin(row, loss(row)) for row in store.device_rounds(record.round)]
            store.add_round(record, rows, store.group_rounds() if record.round == 0 else ())
    return folder


def _twin(row: DeviceRoundRecord, loss: float) -> DeviceRoundRecord:
    if row.outcome != "trained":
        return replace(row, accuracy_before=0.5, twin_accuracy_after=0.5 + loss, twin_measured_bytes=400_000)
    return replace(
        row,
        gradient_captured=1 - 2 * loss,
        twin_measured_bytes=400_000,
        twin_loss_after=0.8,
        twin_accuracy_after=(row.accuracy_after or 0.0) + loss,
        twin_cosine=1 - 3 * loss,
        twin_norm_ratio=1.0,
    )


def with_groups(folder: Path) -> Path:
    """Judge the shared model by group before the first round of a run and after its last."""
    with RunStore.open(folder) as store:
        names = dict.fromkeys(device.group_name for device in store.devices())
        first, *_, last = store.rounds()
        for record, accuracy in ((first, 0.125), (last, 0.75)):
            groups = [GroupRoundRecord(record.round, name, 2, 40, 1.0, accuracy) for name in names]
            store.add_round(record, list(store.device_rounds(record.round)), groups)
    return folder
