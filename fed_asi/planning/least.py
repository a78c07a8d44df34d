"""The exact choice of one form per layer at the least cost, within several limits at once.

If bytes are the only limit, knapsack.py finds it faster. With limits on seconds, joules or a plan's worth the choice
is a mixed-integer programme, solved by HiGHS through scipy. HiGHS computes in floating point, so its solution is
summed again, and one that exceeds a limit by less than HiGHS's tolerance is ruled out.

A layer is an array (r, n) with a column per form and a row per sum that a goal or a limit uses. Row 0 is whole bytes.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from fed_asi.errors import FedAsiError
from fed_asi.planning.knapsack import UNLIMITED_BYTES, Choices, Knapsack
from fed_asi.planning.solver_output import beside_the_result

Rows = npt.NDArray[np.float64]
Layers = Sequence[Rows]
SLACK = 1e-9  # of a limit other than bytes: seconds are sums of rounded terms
_HALF = 0.5  # byte: the slack of a limit in bytes
_INFEASIBLE = 2  # scipy's status of an infeasible problem
_ATTEMPTS = 200
_SCALE = 1e3  # the goal's largest term is scaled to this: HiGHS stops within 1e-6 of the best


def least(layers: Layers, goal: Sequence[float], upper: Sequence[float] | Rows) -> tuple[int, ...] | None:
    """Return the index of each layer's form in the choice that costs least; None if none is within the limits.

    goal: (r,), the price of each row. upper: (r,), the most that each row may sum to; infinity for no limit. Row 0, the
    bytes, is summed in whole numbers.
    """
    limits = np.asarray(upper, dtype=np.float64)
    if not layers:
        return () if bool((limits >= 0).all()) else None
    if not np.isfinite(limits[1:]).any():
        solution = _knapsack(layers, goal).solve(_whole(limits[0]))
        return None if solution is None else solution.chosen
    kept = [_undominated(rows, goal, limits) for rows in layers]
    cut = [rows[:, of] for rows, of in zip(layers, kept, strict=True)]
    ruled_out: list[tuple[int, ...]] = []
    for _ in range(_ATTEMPTS):
        found = _solved(cut, goal, limits, ruled_out, whole=True)
        if found is None:
            return None
        picks = _picks(cut, found[0])
        if bool((_sums(cut, picks) <= limits + _slack(limits)).all()):
            return tuple(int(of[i]) for of, i in zip(kept, picks, strict=True))
        ruled_out.append(picks)
    raise FedAsiError("the solver finds only plans that are over a limit by less than it can tell")


def bound(layers: Layers, goal: Sequence[float], upper: Sequence[float] | Rows) -> float:
    """Return a cheap lower bound on the cost of any choice within the limits; infinity if there is none."""
    limits = np.asarray(upper, dtype=np.float64)
    if not layers:
        return 0.0 if bool((limits >= 0).all()) else np.inf
    if not np.isfinite(limits[1:]).any():
        return -_knapsack(layers, goal).bound(_whole(limits[0]))
    found = _solved(layers, goal, limits, (), whole=False)
    return np.inf if found is None else found[1] - found[2] * SLACK


def _knapsack(layers: Layers, goal: Sequence[float]) -> Knapsack:
    return Knapsack([Choices(rows[0].astype(np.int64), -np.dot(goal, rows)) for rows in layers])


def _whole(limit: float) -> int:
    return int(limit) if np.isfinite(limit) else UNLIMITED_BYTES


def _slack(limits: Rows) -> Rows:
    slack = SLACK * np.where(np.isfinite(limits), np.abs(limits), 0.0)
    slack[0] = _HALF
    return slack


def _undominated(rows: Rows, goal: Sequence[float], limits: Rows) -> npt.NDArray[np.int64]:
    """Return the forms that no other matches or beats in cost and in every limited row; of equals the first."""
    costs = np.vstack([np.dot(goal, rows), rows[np.isfinite(limits)]])
    better = (costs[:, :, None] <= costs[:, None, :]).all(axis=0)
    equal = better & better.T
    earlier = np.tri(rows.shape[1], k=-1, dtype=np.bool_).T
    return np.flatnonzero(~(better & (~equal | earlier)).any(axis=0))


def _sums(layers: Layers, picks: Sequence[int]) -> Rows:
    found: Rows = np.sum([rows[:, i] for rows, i in zip(layers, picks, strict=True)], axis=0)
    return found


def _picks(layers: Layers, x: Rows) -> tuple[int, ...]:
    parts = np.split(x, np.cumsum([rows.shape[1] for rows in layers])[:-1])
    return tuple(int(np.argmax(part)) for part in parts)


def _solved(
    layers: Layers,
    goal: Sequence[float],
    limits: Rows,
    ruled_out: Sequence[tuple[int, ...]],
    *,
    whole: bool,
) -> tuple[Rows, float, float] | None:
    """Return the solution of HiGHS, its cost, and the largest cost of any form; None if it is infeasible.

    whole: one form per layer, without mixtures.
    """
    from scipy.optimize import Bounds, LinearConstraint, milp

    every = np.hstack(layers)
    starts = np.cumsum([0, *(rows.shape[1] for rows in layers)])
    one = np.repeat(np.eye(len(layers)), np.diff(starts), axis=1)
    constraints = [LinearConstraint(one, 1.0, 1.0)]
    bounded = np.flatnonzero(np.isfinite(limits))
    if len(bounded):
        scale = np.maximum(np.abs(every[bounded]).max(axis=1), 1e-300)  # HiGHS's tolerances are absolute
        most = (limits + _slack(limits))[bounded] / scale
        constraints.append(LinearConstraint(every[bounded] / scale[:, None], -np.inf, most))
    for picks in ruled_out:
        row = np.zeros(every.shape[1])
        row[starts[:-1] + np.array(picks)] = 1.0
        constraints.append(LinearConstraint(row, -np.inf, len(picks) - 1.0))
    costs = np.dot(goal, every)
    unit = max(float(np.abs(costs).max()), 1e-300) / _SCALE
    with beside_the_result():
        found = milp(
            costs / unit,
            constraints=constraints,
            integrality=np.full(every.shape[1], int(whole)),
            bounds=Bounds(0, 1),
            options={"mip_rel_gap": 0.0},
        )
    if found.status == _INFEASIBLE:
        return None
    if found.x is None:
        raise FedAsiError(f"the solver of plans gave up: {found.message}")
    return found.x, float(found.fun) * unit, _SCALE * unit
