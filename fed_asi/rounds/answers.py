"""The replies of a round, and which of them count: the first that trained, by the run's clock."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from fed_asi.results.schema import DeviceRoundRecord
from fed_asi.rounds.fates import Fate, cut_off
from fed_asi.strategies import Update


@dataclass(frozen=True, slots=True, eq=False)
class Answer:
    """One device's reply, judged. update: None if it is not averaged. fate: when it arrived, by the clock."""

    record: DeviceRoundRecord
    update: Update | None
    fate: Fate
    notes: tuple[str, ...] = ()

    @property
    def order(self) -> tuple[float, int]:
        """The sort key of replies: when they arrive, then the partition id."""
        return self.fate.ends, self.record.partition_id


def by_reply(fates: Sequence[Fate]) -> tuple[list[Fate], list[Fate]]:
    """Return the devices that will reply, in the order of their replies, and those that will not."""
    coming = [found for found in fates if found.outcome is None]
    coming.sort(key=lambda found: (found.ends, found.job.partition_id))
    return coming, [found for found in fates if found.outcome is not None]


def had_model(record: DeviceRoundRecord) -> bool:
    """Return whether a device that did not reply had received the model, as it had moved on to another outcome."""
    return record.sim_seconds is not None and record.sim_seconds > (record.download_seconds or 0.0)


def still_to_ask(waiting: list[Fate], answers: Sequence[Answer], wanted: int | None) -> list[Fate]:
    """Return the devices that must be computed now. waiting: in the order in which they will reply. wanted: None: all.

    A device that trained, but took longer than predicted, counts only while no waiting device would have been faster.
    """
    if wanted is None or not waiting:
        return waiting
    trained = [one for one in answers if one.update is not None and one.fate.ends <= waiting[0].ends]
    return waiting[: max(0, wanted - len(trained))]


def counted(answers: Sequence[Answer], wanted: int | None) -> list[Answer]:
    """Return the answers whose updates are averaged: the first `wanted` that trained; None: all that did."""
    return sorted((one for one in answers if one.update is not None), key=lambda one: one.order)[:wanted]


def cut_at(answer: Answer, start: float, end: float, replies: int, *, counts: bool) -> DeviceRoundRecord:
    """Return an answer's record at the end of the round. counts: whether its update was averaged.

    A device that trained and does not count is late; one that failed keeps its own outcome, and is cut off as well.
    """
    record = answer.record
    if counts or (answer.update is None and answer.fate.ends <= end):
        return record
    found = cut_off(replace(answer.fate, outcome=None), start, end, replies)
    times = {} if found.spent is None else found.spent.columns()
    if record.outcome not in {"trained", "late"}:
        return replace(record, **times)
    return replace(record, outcome="late", cause=found.cause, **times)
