"""The measures of a run: one registry of small definitions, each a query over the run's records.

A definition names the columns that it needs. A run without them, or without values in them, lacks the measure, and a
measure that no run of a study has appears in no table or figure. A new column in the records needs no change here if
its measure exists, and one `register` if not.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from fed_asi.errors import ConfigError
from fed_asi.studies.statistics import ANYTHING, Bounds

Unit = Literal["share", "points", "bytes", "seconds", "joules", "rounds"]  # points: differences of shares
BOUNDS: dict[str, Bounds] = {"share": (0.0, 1.0), "points": (-1.0, 1.0)}
NOT_NEGATIVE: Bounds = (0.0, ANYTHING[1])


@dataclass(frozen=True, slots=True)
class Way:
    """A query over the tables of fed_asi/results/schema.py, and the columns that it needs, each as table.column."""

    query: str
    needs: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Measure:
    """A number by which finished runs are compared.

    title: for tables and axes. better: which direction is. ways: queries; the first one whose columns exist is used. It
    returns one row with one value. If the measure is spent, it returns a row per round instead, with the round and its
    amount; the run's value is the sum, unknown if any amount is. headline: whether the first table shows it. A headline
    of which less is better is a price, against which accuracy is weighed.
    """

    name: str
    title: str
    unit: Unit
    better: Literal["more", "less"] | None
    ways: tuple[Way, ...]
    spent: bool = False
    headline: bool = True

    @property
    def bounds(self) -> Bounds:
        """The lowest and the highest possible value."""
        return BOUNDS.get(self.unit, NOT_NEGATIVE)

    @property
    def is_price(self) -> bool:
        """Whether accuracy is weighed against it."""
        return self.headline and self.better == "less"

    def way(self, columns: frozenset[str]) -> Way | None:
        """Return the query for a run with these columns; None if it lacks some."""
        return next((one for one in self.ways if columns.issuperset(one.needs)), None)


@dataclass(frozen=True, slots=True)
class Curve:
    """A quantity drawn over rounds: a query that returns (round, value)."""

    name: str
    title: str
    way: Way


MEASURES: dict[str, Measure] = {}


def register(measure: Measure) -> Measure:
    """Add a measure after the existing ones and return it. Raises ConfigError for a name that is taken."""
    if measure.name in MEASURES:
        raise ConfigError(f"a measure called {measure.name!r} is there already")
    MEASURES[measure.name] = measure
    return measure


def _last(column: str) -> tuple[Way, ...]:
    query = f"SELECT {column} FROM rounds WHERE {column} IS NOT NULL ORDER BY round DESC LIMIT 1"
    return (Way(query, (f"rounds.{column}",)),)


def _largest(column: str) -> tuple[Way, ...]:
    return (Way(f"SELECT max({column}) FROM device_rounds", (f"device_rounds.{column}",)),)


def _rounds(column: str) -> Way:
    query = f"SELECT round, {column} FROM rounds WHERE round > 0 ORDER BY round"
    return Way(query, ("rounds.round",) if column == "1" else (f"rounds.{column}",))


def _over_devices(function: str, column: str) -> Way:
    """Return a query over the devices of each round: no rows if the column is empty, 0 if nobody trained."""
    query = (
        f"SELECT round, CASE WHEN count({column}) OR total(outcome = 'trained') THEN {function}({column}) ELSE 0 END "
        f"FROM device_rounds WHERE EXISTS (SELECT 1 FROM device_rounds WHERE {column} IS NOT NULL) "
        "GROUP BY round ORDER BY round"
    )
    return Way(query, (f"device_rounds.{column}",))


# A round lasts from the end of the one before to its own end on the run's clock, waiting for devices included.
_ENDS = Way(
    "SELECT round, sim_end_seconds - coalesce(lag(sim_end_seconds) OVER (ORDER BY round), 0) FROM rounds "
    "WHERE round > 0 ORDER BY round",
    ("rounds.sim_end_seconds",),
)
_ENERGY = _over_devices("sum", "energy_joules")
_TWINS = Way(
    "SELECT avg(accuracy_after - twin_accuracy_after) FROM device_rounds WHERE outcome = 'trained'",
    ("device_rounds.twin_accuracy_after",),
)
_CAPTURED = Way(
    "SELECT avg(gradient_captured) FROM device_rounds WHERE outcome = 'trained'",
    ("device_rounds.gradient_captured",),
)
_BESIDE = ("accumulator_bytes", "optimizer_bytes", "strategy_bytes", "factors_bytes")  # the weights
_STATIC = Way(
    f"SELECT max(weight_bytes + {' + '.join(f'coalesce({one}, 0)' for one in _BESIDE)}) FROM device_rounds",
    tuple(f"device_rounds.{one}" for one in ("weight_bytes", *_BESIDE)),
)
_BEST = Way("SELECT max(accuracy) FROM rounds", ("rounds.accuracy",))
_TRAINED = Way(
    "SELECT CAST(sum(trained) AS REAL) / nullif(sum(asked), 0) FROM rounds",
    ("rounds.trained", "rounds.asked"),
)

ACCURACY = register(Measure("final_accuracy", "accuracy", "share", "more", _last("accuracy")))
WORST_CLASS = register(
    Measure("worst_class_accuracy", "worst class", "share", "more", _last("worst_class_accuracy"))
)
TOOK_PART = register(Measure("took_part", "took part", "share", "more", (_TRAINED,)))
RAM = register(Measure("ram_bytes", "RAM", "bytes", "less", _largest("ram_bytes")))
SAVED = register(Measure("measured_bytes", "saved bytes", "bytes", "less", _largest("measured_bytes")))
FLASH = register(Measure("flash_bytes", "flash", "bytes", "less", _largest("flash_bytes")))
BYTES_UP = register(Measure("bytes_up", "bytes up", "bytes", "less", (_rounds("bytes_up"),), spent=True))
SIM_SECONDS = register(Measure("sim_seconds", "simulated time", "seconds", "less", (_ENDS,), spent=True))
ENERGY = register(Measure("energy_joules", "energy", "joules", "less", (_ENERGY,), spent=True))
ROUNDS = Measure("rounds", "rounds", "rounds", None, (_rounds("1"),), spent=True, headline=False)
for _measure in (
    ROUNDS,
    Measure("best_accuracy", "best round", "share", "more", (_BEST,), headline=False),
    Measure("twin_difference", "against twins", "points", "more", (_TWINS,), headline=False),
    Measure("gradient_captured", "gradient captured", "share", "more", (_CAPTURED,), headline=False),
    Measure("planned_bytes", "planned bytes", "bytes", "less", _largest("planned_bytes"), headline=False),
    Measure("static_bytes", "static bytes", "bytes", "less", (_STATIC,), headline=False),
    Measure("published_bytes", "papers' count", "bytes", "less", _largest("published_bytes"), headline=False),
    Measure(
        "bytes_down", "bytes down", "bytes", "less", (_rounds("bytes_down"),), spent=True, headline=False
    ),
    Measure(
        "host_seconds", "host time", "seconds", None, (_rounds("host_seconds"),), spent=True, headline=False
    ),
):
    register(_measure)


def _over_rounds(name: str, title: str) -> Curve:
    return Curve(name, title, Way(f"SELECT round, {name} FROM rounds ORDER BY round", (f"rounds.{name}",)))


CURVES = (_over_rounds("accuracy", "accuracy"), _over_rounds("worst_class_accuracy", "worst class"))
TARGETED = "accuracy"  # the curve that a target is a value of
