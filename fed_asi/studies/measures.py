"""What a run can be measured by: one registry of small definitions, each a query over the run's records.

A definition names the columns it needs. A run that lacks them, or has nothing in them, lacks the measure, and where no
run of a study has it, no table or figure shows it: a column that is new in the records needs no change here if its
measure is there already, and one `register` if not.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from fed_asi.errors import ConfigError
from fed_asi.studies.statistics import ANYTHING, Bounds

Unit = Literal["share", "points", "bytes", "seconds", "joules", "rounds"]  # points: shares less shares
BOUNDS: dict[str, Bounds] = {"share": (0.0, 1.0), "points": (-1.0, 1.0)}
NOT_NEGATIVE: Bounds = (0.0, ANYTHING[1])


@dataclass(frozen=True, slots=True)
class Way:
    """A query over the tables of fed_asi/results/schema.py, and the columns it needs, each as table.column."""

    query: str
    needs: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Measure:
    """A number by which finished runs are compared.

    title: as tables and axes have it. better: which way is. ways: the first one whose columns are there is taken. A way
    gives one row with one value; of a measure that is spent, a row a round with the round and what it took, and the
    run's value is their sum, which is not known where a round's is not. headline: whether the first table has it; a
    headline of which less is better is a price, which accuracy is weighed against.
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
        """The least and the most that it can be."""
        return BOUNDS.get(self.unit, NOT_NEGATIVE)

    @property
    def is_price(self) -> bool:
        """Whether accuracy is weighed against it."""
        return self.headline and self.better == "less"

    def way(self, columns: frozenset[str]) -> Way | None:
        """Return how a run with these columns says it; None where it cannot."""
        return next((one for one in self.ways if columns.issuperset(one.needs)), None)


@dataclass(frozen=True, slots=True)
class Curve:
    """What is drawn over rounds: a query that gives (round, value)."""

    name: str
    title: str
    way: Way


MEASURES: dict[str, Measure] = {}


def register(measure: Measure) -> Measure:
    """Add a measure after those that studies show. Raises ConfigError for a name that is taken."""
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
    """Nothing where no device of the run has the column; 0 for a round in which nobody trained."""
    query = (
        f"SELECT round, CASE WHEN count({column}) OR total(outcome = 'trained') THEN {function}({column}) ELSE 0 END "
        f"FROM device_rounds WHERE EXISTS (SELECT 1 FROM device_rounds WHERE {column} IS NOT NULL) "
        "GROUP BY round ORDER BY round"
    )
    return Way(query, (f"device_rounds.{column}",))


# A round takes until it ends on the run's clock, from where the one before ended: waiting for devices counts.
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
TARGETED = "accuracy"  # the curve that a target is a height of
