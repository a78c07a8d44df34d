"""A device's warm factors: in its Flower state, and on its disk if it has one, so that they survive a kill."""

from __future__ import annotations

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict

from fed_asi.devices.job import Job
from fed_asi.devices.reply import State
from fed_asi.devices.warm_factors import WarmFactors, packed, unpacked
from fed_asi.errors import RunError, first_line

ARRAYS, ROUND = "factors", "factors-round"


class DeviceState:
    """One device's state. flower: its Context.state. disk: where it is kept as well; None: in Flower's state only."""

    def __init__(self, flower: RecordDict, disk: State | None) -> None:
        self._flower, self._disk = flower, disk

    def factors(self, job: Job) -> WarmFactors | None:
        """Return the factors after the round that the job names, from Flower's state or else the disk; None: round 0.

        Raises RunError where they are in neither, or cannot be read.
        """
        if job.factors_round == 0:
            return None
        try:
            if ROUND in self._flower and self._flower.config_records[ROUND]["round"] == job.factors_round:
                return _unpack(self._flower.array_records[ARRAYS])
            why = f"none of round {job.factors_round}"
        except (
            KeyError,
            ValueError,
            TypeError,
            OSError,
        ) as error:  # another program's state, or a broken one
            why = first_line(error)
        if self._disk is None:
            raise RunError(f"its Flower state holds no warm factors: {why}")
        return self._disk.factors(job)

    def keep(self, job: Job, factors: WarmFactors) -> None:
        """Keep the factors after this job's round. Raises RunError where its disk fails."""
        if not factors:
            return
        self._flower[ARRAYS] = _pack(factors)
        self._flower[ROUND] = ConfigRecord({"round": job.round})
        if self._disk is not None:
            self._disk.keep(job, factors)


def _pack(factors: WarmFactors) -> ArrayRecord:
    """Return the same bytes as a disk would hold, so that the next round starts with the same bits from either."""
    return ArrayRecord({ARRAYS: Array(np.frombuffer(packed(factors), dtype=np.uint8))})


def _unpack(record: ArrayRecord) -> WarmFactors:
    return unpacked(record[ARRAYS].numpy().tobytes(), "it")
