"""The statistics: against hand-worked numbers and other methods, and against properties that hold for any numbers."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from fed_asi.studies.statistics import Verdict, compare, estimate, holm

T2 = 4.302652729911275  # Student's t at 0.975: of two degrees of freedom, as tables have it
T4 = 2.7764451051977987

shares = st.floats(0, 1, allow_subnormal=False)
seeds = st.dictionaries(st.integers(0, 9), shares, max_size=8)


def test_mean_error_and_interval_of_three_seeds_by_hand():
    found = estimate([0.70, 0.72, 0.77])
    assert found.count == 3
    assert found.mean == pytest.approx(0.73)
    se = math.sqrt((0.03**2 + 0.01**2 + 0.04**2) / 2 / 3)  # the sample's variance, over three
    assert found.se == pytest.approx(se)
    assert (found.low, found.high) == (pytest.approx(0.73 - T2 * se), pytest.approx(0.73 + T2 * se))


def test_below_three_seeds_there_is_no_interval():
    one, two = estimate([0.7]), estimate([0.7, 0.8])
    assert (one.count, one.mean, one.se, one.low) == (1, 0.7, None, None)
    assert (two.mean, two.se, two.low) == (pytest.approx(0.75), pytest.approx(0.05), None)


def test_an_interval_stays_within_what_the_measure_can_be():
    found = estimate([0.0, 0.01, 0.06], (0, 1))
    assert found.low == 0
    assert 0.06 < found.high < 1


def test_seeds_that_agree_have_an_interval_of_one_point_and_rounding_is_no_spread():
    assert estimate([5.0, 5.0, 5.0]).high == 5.0
    found = estimate([0.1 + 0.2, 0.3, 0.3])
    assert (found.se, found.low, found.high) == (0.0, found.mean, found.mean)


@pytest.mark.parametrize("values", [[], [math.nan], [1.0, math.inf]])
def test_what_has_no_mean_is_an_error(values):
    with pytest.raises(ValueError, match="no mean"):
        estimate(values)


def test_a_paired_difference_by_hand():
    base = {0: 0.60, 1: 0.70, 2: 0.65, 3: 0.62, 4: 0.71}
    own = {0: 0.63, 1: 0.72, 2: 0.69, 3: 0.65, 4: 0.74}  # +3, +2, +4, +3, +3 points
    found = compare({"base": base, "own": own}, "base")["own"]
    se = 0.01 * math.sqrt((0 + 1 + 1 + 0 + 0) / 4 / 5)
    assert (found.count, found.mean, found.se) == (5, pytest.approx(0.03), pytest.approx(se))
    assert (found.low, found.high) == (pytest.approx(0.03 - T4 * se), pytest.approx(0.03 + T4 * se))
    assert found.p == pytest.approx(2 * stats.t.sf(0.03 / se, 4))
    assert found.corrected_p == found.p
    assert found.verdict is Verdict.HIGHER
    assert np.mean(list(own.values())) < np.mean(list(base.values())) + 2 * np.std(list(base.values()))


def test_pairs_are_of_common_seeds_alone():
    values = {"base": {0: 0.1, 1: 0.2, 2: 0.4, 7: 0.9}, "own": {0: 0.2, 1: 0.5, 2: 0.6, 8: 0.0}}
    found = compare(values, "base")["own"]
    assert (found.count, found.mean) == (3, pytest.approx(0.2))
    assert compare({"base": {0: 1.0}, "own": {1: 1.0}}, "base")["own"].verdict is Verdict.NONE
    assert compare({"own": {1: 1.0}}, "base")["own"].count == 0


def test_two_seeds_conclude_nothing_however_far_apart():
    found = compare({"base": {0: 0.1, 1: 0.11}, "own": {0: 0.9, 1: 0.92}}, "base")["own"]
    assert (found.count, found.verdict, found.low, found.p) == (2, Verdict.FEW, None, None)
    assert found.mean == pytest.approx(0.805)
    found = compare({"base": {0: 1.0, 1: 2.0}, "own": {0: 2.0, 1: 3.0}}, "base")["own"]
    assert found.verdict is Verdict.FEW


def test_a_difference_without_spread_is_not_tested():
    base = {0: 0.3, 1: 0.5, 2: 0.9}
    same = compare({"base": base, "own": dict(base)}, "base")["own"]
    assert (same.verdict, same.mean, same.p) == (Verdict.EQUAL, 0.0, None)
    shifted = {seed: value - 0.2 for seed, value in base.items()}
    found = compare({"base": base, "own": shifted}, "base")["own"]
    assert (found.verdict, found.p, found.low) == (Verdict.CONSTANT, None, pytest.approx(-0.2))
    off = {seed: value + 1e-17 for seed, value in base.items()}
    assert compare({"base": base, "own": off}, "base")["own"].verdict is Verdict.EQUAL


def test_comparisons_without_a_spread_count_as_tried():
    base = {0: 0.5, 1: 0.6, 2: 0.7}
    off = {0: 0.58, 1: 0.70, 2: 0.81}
    alone = compare({"base": base, "off": off}, "base")["off"]
    more = compare({"base": base, "off": off, "same": base, "again": base, "few": {0: 0.5}}, "base")
    assert alone.verdict is Verdict.HIGHER
    assert more["off"].corrected_p == pytest.approx(3 * alone.p)
    assert more["same"].corrected_p is None
    assert (more["same"].verdict, more["few"].verdict) == (Verdict.EQUAL, Verdict.FEW)


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5, 0.9]) == pytest.approx([1.0, 1.0])
    assert holm([0.02]) == [0.02]
    assert holm([]) == []


@given(st.lists(shares, max_size=12))
def test_holm_lies_between_no_correction_and_bonferronis(ps):
    corrected = holm(ps)
    assert all(p <= q <= min(1, len(ps) * p) for p, q in zip(ps, corrected, strict=True))
    order = sorted(range(len(ps)), key=ps.__getitem__)
    assert [corrected[i] for i in order] == sorted(corrected)
    rejected = sum(q < 0.05 for q in corrected)  # step by step, as the paper has it
    steps = 0
    while steps < len(ps) and ps[order[steps]] < 0.05 / (len(ps) - steps):
        steps += 1
    assert abs(rejected - steps) <= any(math.isclose(q, 0.05) for q in corrected)


def test_the_correction_takes_back_what_one_test_alone_would_say():
    rng = random.Random(5)
    base = dict.fromkeys(range(6), 0.5)
    own = {seed: 0.5 + step for seed, step in enumerate([0.01, 0.02, -0.002, 0.015, 0.004, 0.012])}
    assert compare({"base": base, "own": own}, "base")["own"].verdict is Verdict.HIGHER
    many = {f"noise {i}": {seed: 0.5 + rng.gauss(0, 0.01) for seed in range(6)} for i in range(9)}
    found = compare({"base": base, "own": own, **many}, "base")
    assert found["own"].low > 0
    assert found["own"].verdict is Verdict.OPEN


@settings(max_examples=40)
@given(seeds, seeds, st.randoms(use_true_random=False))
def test_the_order_of_seeds_says_nothing(own, base, rng):
    def shuffled(values):
        items = list(values.items())
        rng.shuffle(items)
        return dict(items)

    assert compare({"b": base, "o": own}, "b") == compare({"o": shuffled(own), "b": shuffled(base)}, "b")


SWAPPED = {Verdict.HIGHER: Verdict.LOWER, Verdict.LOWER: Verdict.HIGHER}


@settings(max_examples=40)
@given(seeds, seeds)
def test_the_other_way_round_is_the_same_with_the_other_sign(own, base):
    there, back = compare({"b": base, "o": own}, "b")["o"], compare({"b": base, "o": own}, "o")["b"]
    assert back.verdict is SWAPPED.get(there.verdict, there.verdict)
    assert (back.count, back.p) == (there.count, pytest.approx(there.p) if there.p is not None else None)
    if there.low is not None:
        assert (back.mean, back.low, back.high) == (
            pytest.approx(-there.mean),
            pytest.approx(-there.high),
            pytest.approx(-there.low),
        )


@settings(max_examples=40)
@given(st.dictionaries(st.sampled_from("abcdef"), seeds, min_size=2))
def test_nothing_is_higher_or_lower_whose_interval_covers_zero(values):
    baseline, *_ = values
    for one in compare(values, baseline).values():
        if one.verdict in SWAPPED:
            assert one.count >= 3
            assert one.low is not None
            assert one.high is not None
            assert not one.low <= 0 <= one.high
            assert one.corrected_p < 0.05
            assert one.verdict is (Verdict.HIGHER if one.mean > 0 else Verdict.LOWER)


@settings(max_examples=40)
@given(seeds, shares)
def test_what_all_variants_of_a_seed_share_cancels(own, step):
    rough = {seed: 7 * (seed % 3) for seed in own}  # a hard seed and an easy one
    base = {seed: value / 3 for seed, value in own.items()}
    plain = compare({"b": base, "o": own}, "b")["o"]
    lifted = compare({"b": _plus(base, rough), "o": _plus(own, rough)}, "b")["o"]
    if plain.se and plain.se > 1e-6:
        assert lifted.mean == pytest.approx(plain.mean, abs=1e-9)
        assert lifted.se == pytest.approx(plain.se, rel=1e-6)


def _plus(values, steps):
    return {seed: value + steps[seed] for seed, value in values.items()}


def covered(interval, draw, mean: float = 0.0, draws: int = 1000) -> float:
    """The share of samples of three values whose 95 % interval holds the true mean."""
    rng = np.random.default_rng(0)
    low, high = interval(draw(rng, (draws, 3)), rng)
    return float(np.mean((low <= mean) & (high >= mean)))


def by_t(samples, _rng):
    found = [estimate(list(row)) for row in samples]
    return np.array([one.low for one in found]), np.array([one.high for one in found])


def by_bootstrap(method):
    def interval(samples, rng):
        how = {"axis": 1, "n_resamples": 499, "method": method, "random_state": rng}
        return stats.bootstrap((samples,), np.mean, **how).confidence_interval

    return interval


def normal(rng, shape):
    return rng.normal(size=shape)


def skewed(rng, shape):
    return rng.lognormal(sigma=0.5, size=shape)


def test_the_interval_covers_what_it_says_with_three_seeds_and_a_bootstrap_does_not():
    assert covered(by_t, normal) == pytest.approx(0.95, abs=0.02)
    assert covered(by_t, skewed, math.exp(0.125)) == pytest.approx(0.92, abs=0.02)
    assert covered(by_bootstrap("percentile"), normal) < 0.8
    assert covered(by_bootstrap("BCa"), normal, draws=400) < 0.8


def test_wilcoxons_test_can_show_nothing_below_six_seeds():
    least = {count: stats.wilcoxon(range(1, count + 1), method="exact").pvalue for count in (3, 5, 6)}
    assert least == {3: 0.25, 5: 0.0625, 6: 0.03125}
