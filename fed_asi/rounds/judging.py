"""From a reply to a row of the records, and to an update if there is one that may be averaged."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from fed_asi.devices.edge import readable
from fed_asi.devices.exchange import Exchange
from fed_asi.devices.job import Job
from fed_asi.devices.reply import Reply
from fed_asi.errors import UpdateError
from fed_asi.fleets.resources import of_one_round
from fed_asi.results.schema import DeviceRoundRecord
from fed_asi.rounds.answers import Answer
from fed_asi.rounds.fates import Fate
from fed_asi.rounds.round_clock import RoundClock
from fed_asi.strategies import Update, check_update
from fed_asi.workplace.place import Workplace


@dataclass(frozen=True, slots=True)
class Judge:
    """Judges replies against what was asked and sent."""

    place: Workplace
    exchange: Exchange
    clock: RoundClock

    def answer(self, job: Job, reply: Reply, tensors: Mapping[str, Tensor], began: float) -> Answer:
        """Return the device's answer, without an update if there is none or it must not be averaged.

        tensors: the weights it was sent. began: when, on the run's clock.
        """
        stats = of_one_round(job.resources) | reply.stats
        update = None
        if stats["outcome"] == "trained":
            try:
                update = self._update(job, reply, tensors)
            except UpdateError as error:
                update, stats["outcome"], stats["cause"] = None, "rejected", readable(str(error))
        found = self._by_the_clock(job, stats, began)
        if found.outcome is not None and stats["outcome"] == "trained":  # it took longer than its first plan
            update, stats["outcome"], stats["cause"] = None, found.outcome, found.cause
        record = DeviceRoundRecord(
            round=job.round,
            partition_id=reply.partition_id,
            host_seconds=reply.host_seconds,
            bytes_up=reply.bytes_up,
            bytes_down=reply.bytes_down,
            **stats,
            **({} if found.spent is None else found.spent.columns()),
        )
        return Answer(record, update, found, reply.notes)

    def _by_the_clock(self, job: Job, stats: dict[str, Any], began: float) -> Fate:
        timing = self.clock.timing
        return self.clock.fate(job, None if timing is None else timing.after(job, stats), began)

    def _update(self, job: Job, reply: Reply, tensors: Mapping[str, Tensor]) -> Update:
        """Return the update in a reply. Raises UpdateError for one that no strategy may see."""
        trained, beside = self.exchange.read(reply.tensors, reply.trained, tensors, reply.slices)
        examples, steps = (int(reply.stats.get(key) or 0) for key in ("num_examples", "steps"))
        weights = self._weights(reply)
        update = Update(reply.partition_id, examples, trained, weights, steps, beside, reply.slices)
        check_update(update, self.place.reference, reply.trained)
        self.exchange.strategy.check(update, tensors)
        if self.exchange.strategy.counts_steps and not 1 <= steps <= self._most_steps(job):
            raise UpdateError(f"it says it took {steps} steps, and was asked for {self._most_steps(job)}")
        return update

    def _most_steps(self, job: Job) -> int:
        """Return how many steps a device takes that trains on all of its shard."""
        images = len(self.place.shard(job.partition_id).train)
        return self.place.config.train.epochs * -(-images // job.resources.batch_size)

    def _weights(self, reply: Reply) -> dict[str, float]:
        settings = self.place.config.aggregate
        if settings.weights == "examples" and settings.min_fidelity == 0.0:
            return {}
        kept = {n: share if share >= settings.min_fidelity else 0.0 for n, share in reply.weights.items()}
        if settings.weights == "examples":
            return {name: float(share > 0.0) for name, share in kept.items()}
        return kept
