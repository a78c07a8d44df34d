"""Rates recovered from seconds that were computed with them."""

from __future__ import annotations

import numpy as np
import pytest

from fed_asi import seeds
from fed_asi.errors import ConfigError
from fed_asi.fleets.fitting import KEYS, costs_of, fitted
from fed_asi.fleets.hardware import Hardware
from fed_asi.memory.work import Work

TRUE = Hardware(
    dense_per_second=4e10,
    depthwise_per_second=3e9,
    elements_per_second=7e8,
    bytes_per_second=8e9,
    call_seconds=2e-5,
)
GUESS = Hardware(
    dense_per_second=1e10,
    depthwise_per_second=1e9,
    elements_per_second=1e9,
    bytes_per_second=3e9,
    call_seconds=5e-6,
)


def works() -> list[Work]:
    rng = seeds.rng(1, "works")
    scale = (1e9, 3e7, 1e7, 1e8, 300)
    return [Work(*(int(one) for one in np.exp(rng.normal(0, 1.5, 5)) * scale)) for _ in range(60)]


def seconds(of: list[Work]) -> list[float]:
    costs = costs_of(TRUE)
    return [float(np.array(one) @ costs) for one in of]


def test_rates_are_found_back() -> None:
    done = works()
    found = fitted(done, seconds(done), GUESS)
    for key in KEYS:
        assert found[key] == pytest.approx(getattr(TRUE, key), rel=0.1)


def test_a_few_wild_measurements_change_little() -> None:
    done = works()
    taken = seconds(done)
    for place in (3, 17, 40):
        taken[place] *= 8
    costs = costs_of(Hardware("", **fitted(done, taken, GUESS)))
    off = [
        abs(float(np.array(one) @ costs) / right - 1) for one, right in zip(done, seconds(done), strict=True)
    ]
    assert np.median(off) < 0.1


def test_what_no_measurement_tells_stays_as_guessed() -> None:
    found = fitted([Work(dense_macs=10**9)] * 3, [0.05] * 3, GUESS)
    assert found["dense_per_second"] == pytest.approx(2e10, rel=0.2)
    assert found["depthwise_per_second"] == pytest.approx(1e9)


@pytest.mark.parametrize("taken", [[], [0.0]])
def test_without_seconds_there_are_no_rates(taken: list[float]) -> None:
    with pytest.raises(ConfigError, match="times above 0 seconds"):
        fitted([Work(1)] * len(taken), taken, GUESS)
