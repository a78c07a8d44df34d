"""The exact choice of one form per layer within a device's RAM and flash, as a mixed-integer programme.

A form adds static bytes, bytes that are alive while other layers run (`Share`), and flash. The bytes that a step needs
at one moment are a sum over layers, each in its form, so every moment is one row of the programme:
    static + the trunk's arena <= RAM,   static + what is alive at that moment <= RAM,   flash and saved bytes likewise.
HiGHS solves it, through scipy. It computes in floating point, so its solution is counted again in whole bytes.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import astuple, dataclass, field

import numpy as np
import numpy.typing as npt
from scipy.optimize import Bounds, LinearConstraint, OptimizeResult, milp

from fed_asi.errors import FedAsiError
from fed_asi.memory.arena.shares import Share, Shares, most_alive
from fed_asi.planning.solver_output import beside_the_result

Vector = npt.NDArray[np.float64]
_HALF = 0.5  # byte: sizes are whole, so rounding never moves a sum past this
_INFEASIBLE = 2  # scipy's status of an infeasible problem
_TIE = 1e-9
_ATTEMPTS = 100
_SCALE = 1e3  # the largest value is scaled to this: HiGHS stops within 1e-6 of the best


@dataclass(frozen=True, slots=True)
class Form:
    """A form of a layer: its value and its bytes. flash: of what it only reads. kept: bytes that the budget covers."""

    value: float
    static: int
    flash: int
    share: Share
    kept: int = 0


@dataclass(frozen=True, slots=True)
class Limits:
    """A device's limits in bytes; None for no limit.

    trunk, before: the bytes of phases in which no trained layer runs. around: see `Shares`.
    """

    ram: int | None
    flash: int | None
    trunk: int = 0
    before: int = 0
    around: tuple[int, ...] = ()
    budget: int | None = None


@dataclass(frozen=True, slots=True)
class Packed:
    """The index of each layer's form, the sum of their values, and the RAM and flash that they need."""

    chosen: tuple[int, ...]
    value: float
    ram: int
    flash: int


Layers = Sequence[Sequence[Form]]


def pack(layers: Layers, limits: Limits, without: Collection[tuple[int, ...]] = ()) -> Packed | None:
    """Return the choice of highest value within the limits; None if none fits.

    layers: the forms of each, in forward order, at least one. without: choices that are ruled out.
    """
    kept = [_undominated(forms) for forms in layers]
    if without:  # with those ruled out, a dominated form may be the best one left
        kept = [list(range(len(forms))) for forms in layers]
    programme = _Programme([[forms[i] for i in of] for forms, of in zip(layers, kept, strict=True)], limits)
    for chosen in without:
        programme.rule_out_(chosen)
    for _ in range(_ATTEMPTS):
        found = programme.solved(whole=True)
        if found is None:
            return None
        picks = programme.chosen(found.x)
        packed = _packed(layers, limits, tuple(of[i] for of, i in zip(kept, picks, strict=True)))
        if _fits(packed, layers, limits):
            return packed
        programme.rule_out_(picks)  # it exceeds a limit by less than HiGHS's tolerance
    raise FedAsiError("the solver finds only plans that are a few bytes too large")


def _undominated(forms: Sequence[Form]) -> list[int]:
    """Return the forms that no other matches or beats in value and in every kind of byte; of equals the first."""
    rows = np.array([(-one.value, one.static, one.flash, one.kept, *astuple(one.share)) for one in forms])
    better = (rows[:, None] <= rows[None]).all(axis=2)
    equal = better & better.T
    earlier = np.tri(len(forms), k=-1, dtype=np.bool_).T
    return np.flatnonzero(~(better & (~equal | earlier)).any(axis=0)).tolist()


def most(layers: Layers, limits: Limits) -> float:
    """Return a cheap upper bound on the value of any choice within the limits; minus infinity if none fits."""
    found = _Programme(layers, limits).solved(whole=False)
    return -np.inf if found is None else float(-found.fun) + _TIE * max(1.0, abs(float(found.fun)))


def _packed(layers: Layers, limits: Limits, chosen: tuple[int, ...]) -> Packed:
    picks = [forms[i] for forms, i in zip(layers, chosen, strict=True)]
    around = limits.around or (-1,) * len(picks)
    step = most_alive(Shares(limits.before, tuple(one.share for one in picks), 0, around))
    ram = sum(one.static for one in picks) + max(limits.trunk, step)
    return Packed(chosen, sum(one.value for one in picks), ram, sum(one.flash for one in picks))


def _fits(packed: Packed, layers: Layers, limits: Limits) -> bool:
    kept = sum(forms[i].kept for forms, i in zip(layers, packed.chosen, strict=True))
    held = ((packed.ram, limits.ram), (packed.flash, limits.flash), (kept, limits.budget))
    return all(limit is None or size <= limit for size, limit in held)


@dataclass(slots=True)
class _Programme:
    """The rows of the programme. Each column is a form; the forms of a layer are adjacent, from `starts` on."""

    layers: Layers
    limits: Limits
    starts: list[int] = field(default_factory=list)
    values: Vector = field(default_factory=lambda: np.zeros(0))
    rows: list[Vector] = field(default_factory=list)
    upper: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        counts = [len(forms) for forms in self.layers]
        self.starts = [0, *np.cumsum(counts).tolist()]
        self.values = self._column("value")
        limits = self.limits
        if limits.ram is not None:
            for row, quiet in self._moments():
                self._limit_(row, limits.ram - quiet)
        if limits.flash is not None:
            self._limit_(self._column("flash"), limits.flash)
        if limits.budget is not None:
            self._limit_(self._column("kept"), limits.budget)

    def _limit_(self, row: Vector, limit: float) -> None:
        scale = max(1.0, float(np.abs(row).max(initial=0.0)))  # HiGHS's tolerances are absolute
        self.rows.append(row / scale)
        self.upper.append((limit + _HALF) / scale)

    def rule_out_(self, chosen: tuple[int, ...]) -> None:
        """Exclude one choice."""
        row = np.zeros(len(self.values))
        row[[start + i for start, i in zip(self.starts, chosen, strict=False)]] = 1.0
        self.rows.append(row)
        self.upper.append(len(chosen) - 1.0)

    def solved(self, *, whole: bool) -> OptimizeResult | None:
        """Return the best choice; None if none fits. whole: one form per layer; otherwise mixtures are allowed."""
        count = len(self.values)
        one = np.zeros((len(self.layers), count))
        for i, start in enumerate(self.starts[:-1]):
            one[i, start : self.starts[i + 1]] = 1.0
        limits = [LinearConstraint(one, 1.0, 1.0)]
        if self.rows:
            limits.append(LinearConstraint(np.array(self.rows), -np.inf, np.array(self.upper)))
        unit = max(float(np.abs(self.values).max(initial=0.0)), 1e-300) / _SCALE
        with beside_the_result():
            found = milp(
                -self.values / unit,
                constraints=limits,
                integrality=np.full(count, int(whole)),
                bounds=Bounds(0, 1),
                options={"mip_rel_gap": 0.0},
            )
        if found.status == _INFEASIBLE:
            return None
        if found.x is None:
            raise FedAsiError(f"the solver of plans gave up: {found.message}")
        found.fun *= unit
        return found

    def chosen(self, x: Vector) -> tuple[int, ...]:
        """Return the form that each layer has in a solution."""
        ends = zip(self.starts, self.starts[1:], strict=False)
        return tuple(int(np.argmax(x[start:end])) for start, end in ends)

    def _column(self, name: str) -> Vector:
        return np.array([float(getattr(one, name)) for forms in self.layers for one in forms])

    def _share(self, name: str) -> Vector:
        return np.array([float(getattr(one.share, name)) for forms in self.layers for one in forms])

    def _moments(self) -> Iterator[tuple[Vector, float]]:
        """Yield (bytes by form, bytes independent of the forms) for each moment: the terms of `most_alive`."""
        static, renewed = self._column("static"), self._share("renewed")
        stays, held = self._share("saved") + renewed, self._share("held") + renewed
        forward, inside, backward = (self._share(name) for name in ("forward", "inside", "backward"))
        yield static, max(self.limits.trunk, self.limits.before)
        yield static + held, 0
        for i in range(len(self.layers)):
            here, before, after = self._part(i, i + 1), self._part(0, i), self._part(i + 1, len(self.layers))
            yield static + stays * before + np.maximum(forward, inside) * here, 0
            yield static + stays * before + backward * here + held * after, 0
        yield static + stays, 0
        yield from self._passing(static, stays, inside)

    def _passing(self, static: Vector, stays: Vector, inside: Vector) -> Iterator[tuple[Vector, float]]:
        """Yield the moments at which a layer runs while its block's input is alive for the shortcut."""
        passes, around = self._share("passes"), self.limits.around
        total = static + stays + inside + passes
        free = sum(float(total[a:b].max()) for a, b in zip(self.starts, self.starts[1:], strict=False))
        for opens, j in _passed_by(around):
            here = self._part(j, j + 1)
            row = static + stays * self._part(0, j) + passes * self._part(opens, opens + 1) + inside * here
            yield row - free * here * (inside == 0), 0  # no limit for forms with `inside` 0
        for opens in {one for one in around if one >= 0}:
            yield static + stays * self._part(0, opens + 1) + passes * self._part(opens, opens + 1), 0

    def _part(self, start: int, stop: int) -> Vector:
        """Return a vector with 1 for the forms of layers `start` to `stop` and 0 for others."""
        found = np.zeros(len(self.values))
        found[self.starts[start] : self.starts[stop]] = 1.0
        return found


def _passed_by(around: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Yield (layer that opens a block, layer that the block's input passes by), as in `most_alive`."""
    for j, first in enumerate(around):
        opens = next((i for i in range(j - 1, -1, -1) if i in around), None)
        if first >= 0 and opens is not None and all(around[k] >= 0 for k in range(opens + 1, j)):
            yield opens, j
