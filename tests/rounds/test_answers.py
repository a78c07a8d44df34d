"""Which replies count: the first that train, whatever was predicted; none is lost, and none counts twice."""

from __future__ import annotations

import math
from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from fed_asi.fleets.clock import Spent
from fed_asi.results.schema import DeviceRoundRecord
from fed_asi.rounds.answers import Answer, by_reply, counted, cut_at, had_model, still_to_ask
from fed_asi.rounds.fates import Fate
from fed_asi.strategies import Update
from runs import job

START = 100.0


def spent(seconds: float) -> Spent:
    return Spent(1.0, 0.0, seconds - 1.0, 0.0, 0.0, 0.0, 0.0, 2.0 * seconds, 0.0, 0.0)


def answer(one: int, seconds: float, outcome: str = "trained") -> Answer:
    taken = spent(seconds)
    record = DeviceRoundRecord(1, one, outcome, **taken.columns())  # type: ignore[arg-type]
    update = Update(one, 5, {}) if outcome == "trained" else None
    return Answer(record, update, Fate(job(partition_id=one), taken, START + seconds))


def test_whose_reply_comes_is_asked_in_its_order_and_others_are_not() -> None:
    fates = [
        Fate(job(partition_id=0), spent(9.0), 109.0),
        Fate(job(partition_id=1), spent(5.0), 105.0, "left", "it left"),
        Fate(job(partition_id=2), spent(4.0), 104.0),
        Fate(job(partition_id=3), spent(9.0), 109.0),
    ]
    coming, gone = by_reply(fates)
    assert [one.job.partition_id for one in coming] == [2, 0, 3]
    assert [one.job.partition_id for one in gone] == [1]


def test_who_takes_longer_than_foretold_lets_the_next_be_quicker() -> None:
    waiting = [Fate(job(partition_id=9), spent(12.0), START + 12.0)]
    slow = [answer(0, 3.0), answer(1, 50.0)]
    assert still_to_ask(waiting, [answer(0, 3.0), answer(1, 12.0)], 2) == []
    assert still_to_ask(waiting, slow, 2) == waiting
    assert [one.record.partition_id for one in counted([*slow, answer(9, 12.0)], 2)] == [0, 9]
    late = cut_at(slow[1], START, START + 12.0, 2, counts=False)
    assert (late.outcome, late.cause) == ("late", "the round ended after 12.0 s with 2 replies")
    assert late.sim_seconds == 12.0


def test_who_fails_keeps_its_outcome_and_is_cut_off_too() -> None:
    lost = cut_at(answer(3, 50.0, "out-of-memory"), START, START + 10.0, 2, counts=False)
    assert (lost.outcome, lost.sim_seconds, lost.energy_joules) == ("out-of-memory", 10.0, 2.0 * 50 * 9 / 49)
    early = answer(3, 5.0, "out-of-memory")
    assert cut_at(early, START, START + 10.0, 2, counts=False) is early.record


def test_without_a_number_wanted_all_are_asked_once_and_all_that_train_count() -> None:
    waiting = [Fate(job(partition_id=one), None, START) for one in range(3)]
    assert still_to_ask(waiting, [], None) == waiting
    assert still_to_ask([], [answer(0, 3.0)], None) == []
    assert len(counted([answer(0, 3.0), answer(1, 2.0), answer(2, 2.0, "failed")], None)) == 2


def test_who_had_the_model_went_on_to_something_else() -> None:
    whole = spent(9.0)
    for seconds, had in ((0.0, False), (0.5, False), (1.0, False), (1.5, True), (9.0, True)):
        record = DeviceRoundRecord(1, 0, "late", **whole.until(seconds).columns())
        assert had_model(record) is had
    assert not had_model(DeviceRoundRecord(1, 0, "late"))


@dataclass(frozen=True)
class Told:
    foretold: float
    more: float
    trains: bool


@given(
    st.lists(st.builds(Told, st.integers(2, 9), st.sampled_from([0, 0, 3, 20]), st.booleans()), max_size=12),
    st.integers(1, 6),
)
def test_the_first_that_train_count_whoever_was_asked(devices: list[Told], wanted: int) -> None:
    """The oracle knows what everyone would have taken, those too that never computed."""
    waiting, _ = by_reply(
        [
            Fate(job(partition_id=i), spent(one.foretold), START + one.foretold)
            for i, one in enumerate(devices)
        ]
    )
    answers: list[Answer] = []
    while wave := still_to_ask(waiting, answers, wanted):
        waiting = waiting[len(wave) :]
        for found in wave:
            one = devices[found.job.partition_id]
            outcome = "trained" if one.trains else "failed"
            answers.append(answer(found.job.partition_id, one.foretold + one.more, outcome))
    ends = sorted(one.foretold + one.more for one in devices if one.trains)[:wanted]
    counts = counted(answers, wanted)
    assert sorted(one.fate.ends - START for one in counts) == ends
    end = START + (ends[-1] if ends else 0.0)
    for one in answers:
        record = cut_at(one, START, end if len(ends) == wanted else math.inf, len(ends), counts=one in counts)
        assert (record.outcome == "trained") == (one in counts)
