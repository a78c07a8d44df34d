"""A device's warm factors: in its Flower state, and on its disk where it has one, to outlive a kill."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict

from fed_asi.devices.job import Job
from fed_asi.devices.warm_factors import WarmFactors, load_factors, save_factors

ARRAYS, ROUND = "factors", "factors-round"


class DeviceState:
    """One device's state. flower: its Context.state. folder: its disk; None has Flower's state alone."""

    def __init__(self, flower: RecordDict, folder: Path | None) -> None:
        self._flower, self._folder = flower, folder

    def factors(self, job: Job) -> WarmFactors | None:
        """Return the factors after the round the job names; None where they are nowhere to be found."""
        if job.factors_round == 0:
            return None
        if ROUND in self._flower and self._flower.config_records[ROUND]["round"] == job.factors_round:
            return _unpack(self._flower.array_records[ARRAYS])
        if self._folder is None:
            return None
        return load_factors(self._folder, job.partition_id, job.factors_round)

    def keep(self, job: Job, factors: WarmFactors) -> None:
        """Keep the factors after this job's round."""
        if not factors:
            return
        self._flower[ARRAYS] = _pack(factors)
        self._flower[ROUND] = ConfigRecord({"round": job.round})
        if self._folder is not None:
            save_factors(self._folder, job.partition_id, job.round, job.factors_round, factors)


def _pack(factors: WarmFactors) -> ArrayRecord:
    return ArrayRecord(
        {
            f"{layer}|{mode}": Array(part.detach().contiguous().numpy())
            for layer, parts in factors.items()
            for mode, part in enumerate(parts)
        }
    )


def _unpack(record: ArrayRecord) -> WarmFactors:
    factors: WarmFactors = {}
    for name, array in record.items():
        layer = name.rpartition("|")[0]
        factors.setdefault(layer, []).append(torch.from_numpy(np.array(array.numpy())))
    return factors
