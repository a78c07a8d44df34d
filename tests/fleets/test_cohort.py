"""Which devices a round asks: a function of seed, round and fleet only, which reaches every device."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from fed_asi.fleets.cohort import sample_cohort


@given(st.integers(0, 2**31), st.integers(1, 50), st.integers(1, 60), st.randoms())
def test_cohort_is_a_pure_function_of_seed_round_and_fleet(
    seed: int, round: int, size: int, random: object
) -> None:
    fleet = list(range(40))
    cohort = sample_cohort(seed, round, fleet, size)
    assert cohort == sorted(set(cohort))
    assert len(cohort) == min(size, 40)
    random.shuffle(fleet)  # type: ignore[attr-defined]
    assert sample_cohort(seed, round, fleet, size) == cohort


def test_cohorts_differ_by_round_and_reach_everyone() -> None:
    cohorts = [sample_cohort(0, round, range(20), 5) for round in range(1, 41)]
    assert len({tuple(cohort) for cohort in cohorts}) > 30
    assert set().union(*cohorts) == set(range(20))
