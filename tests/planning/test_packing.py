"""The best forms within RAM and flash: equal to exhaustive search, and to a mixed-integer solver on larger cases."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import Bounds, LinearConstraint, milp

from fed_asi.memory.arena.shares import Share, Shares, most_alive
from fed_asi.planning.packing import Form, Limits, Packed, most, pack

sizes = st.integers(0, 20)
shares = st.builds(
    Share, saved=sizes, held=sizes, renewed=sizes, forward=sizes, inside=sizes, backward=sizes, passes=sizes
)
forms = st.builds(
    Form, value=st.integers(-5, 20).map(float), static=sizes, flash=st.integers(-15, 15), share=shares
)
layers = st.lists(st.lists(forms, min_size=1, max_size=3), min_size=1, max_size=4)
AROUND = ((-1, -1, -1, -1), (-1, 0, 0, -1), (-1, -1, 1, 1), (-1, 0, -1, 2))


def bytes_of(picks: tuple[Form, ...], limits: Limits) -> tuple[int, int]:
    static, flash = sum(one.static for one in picks), sum(one.flash for one in picks)
    found = Shares(limits.before, tuple(one.share for one in picks), 0, limits.around)
    return static + max(limits.trunk, most_alive(found)), flash


def by_hand(every: list[list[Form]], limits: Limits, without: set[tuple[int, ...]]) -> float | None:
    """The highest value of all choices that fit."""
    best: float | None = None
    for chosen in itertools.product(*(range(len(one)) for one in every)):
        picks = tuple(one[i] for one, i in zip(every, chosen, strict=True))
        ram, flash = bytes_of(picks, limits)
        fits = (limits.ram is None or ram <= limits.ram) and (limits.flash is None or flash <= limits.flash)
        value = sum(one.value for one in picks)
        if fits and chosen not in without and (best is None or value > best):
            best = value
    return best


@settings(max_examples=25, deadline=None)
@given(
    layers,
    st.integers(0, 130),
    st.one_of(st.none(), st.integers(-20, 20)),
    sizes,
    st.sampled_from(AROUND),
    st.data(),
)
def test_it_equals_trying_everything(
    every: list[list[Form]],
    ram: int,
    flash: int | None,
    trunk: int,
    around: tuple[int, ...],
    data: st.DataObject,
) -> None:
    limits = Limits(ram, flash, trunk, 0, around[: len(every)])
    choices = list(itertools.product(*(range(len(one)) for one in every)))
    without = set(data.draw(st.lists(st.sampled_from(choices), max_size=3)))
    found, best = pack(every, limits, without=without), by_hand(every, limits, without)
    if best is None:
        assert found is None
        return
    assert found is not None
    assert found.value == best
    assert found.chosen not in without
    picks = tuple(one[i] for one, i in zip(every, found.chosen, strict=True))
    assert (found.ram, found.flash) == bytes_of(picks, limits)
    assert most(every, limits) >= best


def realistic(seed: int, count: int, candidates: int) -> list[list[Form]]:
    """Layers of very different worth; weights stay, a third of the forms need their gradient whole."""
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(count):
        weight, activation = int(rng.integers(1000, 90000)) * 4, int(rng.integers(500, 20000)) * 16
        scale, half = rng.lognormal(0, 1.5), rng.uniform(0.05, 0.5)
        every = [Form(0.0, 0, 0, Share(forward=2 * activation, backward=2 * activation))]
        for _ in range(candidates - 1):
            part, kept = float(rng.choice([0.125, 0.25, 0.5, 1.0])), float(rng.uniform(0.01, 1.0))
            saved, static = int(activation * kept) // 16 * 16, int(weight * part)
            need = 2 * activation + saved + static * int(rng.random() < 0.3)
            worth = scale * part**0.5 * kept / (kept + half)
            every.append(
                Form(worth, static, -static, Share(saved=saved, forward=2 * activation, backward=need))
            )
        found.append(every)
    return found


def by_milp(every: list[list[Form]], limits: Limits) -> float:
    """The highest value by a mixed-integer solver: a row for each moment, so for each layer's two passes."""
    spans = np.cumsum([0, *(len(one) for one in every)])
    flat = [form for one in every for form in one]
    total = len(flat)
    assert limits.ram is not None
    rows, lower, upper = [], [], []
    for i in range(len(every)):
        one = np.zeros(total)
        one[spans[i] : spans[i + 1]] = 1
        rows.append(one)
        lower.append(1.0)
        upper.append(1.0)
        for name in ("forward", "backward"):
            row = np.array([float(form.static) for form in flat])
            row[: spans[i]] += [form.share.saved for form in flat[: spans[i]]]
            row[spans[i] : spans[i + 1]] += [getattr(form.share, name) for form in every[i]]
            rows.append(row)
            lower.append(-np.inf)
            upper.append(float(limits.ram))
    rows.append(np.array([float(form.static) for form in flat]))
    lower.append(-np.inf)
    upper.append(float(limits.ram - limits.trunk))
    if limits.flash is not None:
        rows.append(np.array([float(form.flash) for form in flat]))
        lower.append(-np.inf)
        upper.append(float(limits.flash))
    found = milp(
        -np.array([form.value for form in flat]),
        constraints=LinearConstraint(np.array(rows), lower, upper),
        integrality=np.ones(total),
        bounds=Bounds(0, 1),
        options={"mip_rel_gap": 0},
    )
    return float(-found.fun)


@pytest.mark.few(2)
@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize("flash", [None, -300_000])
@pytest.mark.parametrize("count", [8, pytest.param(14, marks=(pytest.mark.slow, pytest.mark.computes))])
def test_it_equals_a_mixed_integer_solver(seed: int, flash: int | None, count: int) -> None:
    every = realistic(seed, count, 12)
    ram = 900_000 + 150_000 * seed
    limits = Limits(ram, flash, 100_000, 0, (-1,) * count)
    found = pack(every, limits)
    assert isinstance(found, Packed)
    assert found.value == pytest.approx(by_milp(every, limits), rel=1e-9)
    assert found.ram <= ram
