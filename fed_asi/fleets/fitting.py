"""A device's rates, fitted to measured seconds of different kinds of work.

seconds = macs / rate + elements / rate + bytes / rate + calls x cost, with every rate above 0. The fit minimises the
logarithm of predicted over measured seconds, with less weight on outliers. Rates that the measurements do not
determine stay at a first guess.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from fed_asi.errors import ConfigError
from fed_asi.fleets.hardware import Hardware
from fed_asi.memory.work import Work

KEYS = ("dense_per_second", "depthwise_per_second", "elements_per_second", "bytes_per_second", "call_seconds")
_GUESS_SPREAD = 1.5  # standard deviation of a rate's logarithm around its first guess: a factor of 4.5
_OUTLIER = 0.1  # relative error beyond which errors count linearly, not squared
_STEPS, _LONGEST_STEP = 200, 0.5
Array = NDArray[np.float64]


def costs_of(hardware: Hardware) -> Array:
    """Return the seconds that one unit of each kind of work takes, in the order of `Work`."""
    rates = [getattr(hardware, key) for key in KEYS]
    return np.array([1.0 / rate for rate in rates[:-1]] + rates[-1:])


def fitted(works: Sequence[Work], seconds: Sequence[float], guess: Hardware) -> dict[str, float]:
    """Return rates and the cost of a call, by key, that explain the seconds. guess: the first guess of each.

    Raises ConfigError where there are no measurements, or one took no time.
    """
    measured = np.array(seconds, dtype=np.float64)
    if len(measured) == 0 or not bool((measured > 0).all()):
        raise ConfigError("rates are fitted to times above 0 seconds, and there are none")
    done = np.array(works, dtype=np.float64)
    first = np.log(np.maximum(costs_of(guess), 1e-18))
    found = first.copy()
    for _ in range(_STEPS):
        step = _step(done, measured, found, first)
        found = found + np.clip(step, -_LONGEST_STEP, _LONGEST_STEP)
        if float(np.abs(step).max()) < 1e-9:
            break
    costs = np.exp(found)
    return dict(zip(KEYS, [*(1.0 / costs[:-1]).tolist(), float(costs[-1])], strict=True))


def _step(done: Array, measured: Array, found: Array, first: Array) -> Array:
    """Return the Gauss-Newton step of the logarithms of costs."""
    parts = done * np.exp(found)
    predicted = parts.sum(axis=1)
    off = np.log(predicted / measured)
    weight = 1.0 / np.maximum(np.abs(off), _OUTLIER)
    slope = parts / predicted[:, None]
    prior = 1.0 / _GUESS_SPREAD**2
    normal = slope.T @ (weight[:, None] * slope) + prior * np.eye(len(found))
    answer: Array = np.linalg.solve(normal, -(slope.T @ (weight * off) + prior * (found - first)))
    return answer
