"""From a study file on disk to a Study, or to all problems of the file at once (docs/howto/study.md)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, ValidationError

from fed_asi.errors import ConfigError, nearest
from fed_asi.fleets import problems as wording
from fed_asi.fleets.config import folder_name
from fed_asi.fleets.file import read_toml
from fed_asi.fleets.section import Section
from fed_asi.studies.keys import VARIANT, is_same, key_problem, value_problem
from fed_asi.units import shown

STUDY_VERSION: Literal[1] = 1
Kind = Literal["quality", "cost", "robustness"]
ROBUSTNESS = (0.0, 0.1, 0.3, 0.5)  # shares of affected devices, by default for a study of robustness

Values = dict[str, Any]


class VariantConfig(Section):
    """Keys that are set together under one name. axes: of the grid, combined with it; None for all that it leaves."""

    name: Annotated[str, Field(min_length=1, max_length=100)]
    set: Values = Field(default_factory=dict)
    axes: Annotated[tuple[str, ...] | None, Field(strict=False)] = None


class StudyConfig(Section):
    """The schema of a study file."""

    version: Literal[1] = STUDY_VERSION
    name: Annotated[str, AfterValidator(folder_name)]
    title: str | None = None
    fleet: Annotated[str, Field(min_length=1)]  # relative to the study file
    kind: Kind = "quality"
    baseline: str | None = None
    target: Annotated[float | None, Field(gt=0, le=1)] = None
    set: Values = Field(default_factory=dict)
    unset: Annotated[tuple[str, ...], Field(strict=False)] = ()
    grid: Values = Field(default_factory=dict)
    variants: Annotated[tuple[VariantConfig, ...], Field(strict=False)] = ()
    exclude: Annotated[tuple[Values, ...], Field(strict=False)] = ()


@dataclass(frozen=True, slots=True)
class Variant:
    """Keys set together. axes: the grid's keys combined with it. name: None for a grid without variants."""

    name: str | None
    settings: Mapping[str, Any]
    axes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Study:
    """A study file that is valid in itself; the grid checks its effect on the fleet file.

    fleet: the fleet file's content; folder: where that file is. common: keys set for every run, after those in unset
    were removed. axes: the grid without its seeds. seeds: by default the fleet file's own.
    """

    name: str
    title: str
    kind: Kind
    baseline: str | None
    target: float | None
    fleet: Mapping[str, Any]
    folder: Path
    common: Mapping[str, Any]
    unset: tuple[str, ...]
    axes: Mapping[str, Sequence[Any]]
    seeds: tuple[int, ...]
    variants: tuple[Variant, ...]
    exclusions: tuple[Mapping[str, Any], ...]


def load_study(path: str | Path) -> Study:
    """Return the study in a TOML file. Raises ConfigError with all of its problems."""
    path = Path(path)
    raw = read_toml(path)
    try:
        config = StudyConfig.model_validate(raw)
    except ValidationError as error:
        places = wording.by_place(error.errors())
        raise ConfigError(
            [wording.line(place, wording.keys_at(StudyConfig, place["loc"][:-1])) for place in places]
        ) from None
    fleet = path.parent / config.fleet
    content = read_toml(fleet)
    problems: list[str] = []
    axes = dict(_axes(config, problems))
    seeds = tuple(axes.pop("seed", ())) or tuple(_own_seed(content, config.fleet, problems))
    common = _flat(config.set)
    _check_keys("set", common, problems)
    problems += [f"grid.{key}: set for every run under [set] too" for key in axes if key in common]
    variants = _variants(config, axes, problems) or (Variant(None, {}, tuple(axes)),)
    problems += _missing_parts(config, axes)
    if problems:
        raise ConfigError(problems)
    return Study(
        name=config.name,
        title=config.title or config.name,
        kind=config.kind,
        baseline=config.baseline,
        target=config.target,
        fleet=content,
        folder=fleet.parent,
        common=common,
        unset=config.unset,
        axes=axes,
        seeds=seeds,
        variants=variants,
        exclusions=tuple(_flat(one) for one in config.exclude),
    )


def _flat(table: Mapping[str, Any], start: str = "") -> Values:
    """Return a table's values by dotted key, such as "method.name", however they are nested or quoted."""
    found: Values = {}
    for key, value in table.items():
        found |= _flat(value, f"{start}{key}.") if isinstance(value, dict) else {f"{start}{key}": value}
    return found


def _own_seed(content: Mapping[str, Any], name: str, problems: list[str]) -> Iterator[int]:
    """Yield the fleet file's own seed."""
    wrong = value_problem("seed", content.get("seed", 0))
    problems += [f"{name}: seed: {wrong}"] if wrong else []
    yield 0 if wrong else content.get("seed", 0)


def _axes(config: StudyConfig, problems: list[str]) -> Iterator[tuple[str, list[Any]]]:
    """Yield the valid keys of the grid with their values."""
    for key, values in _flat(config.grid).items():
        where = f"grid.{key}"
        if not isinstance(values, list) or not values:
            problems.append(
                f"{where}: must be a list of values, not {shown(values)}; one for every run goes under [set]"
            )
            continue
        wrong = (
            [key_problem(key, seed=True)]
            if key_problem(key, seed=True)
            else [value_problem(key, v) for v in values]
        )
        wrong += [
            f"{shown(value)} is given twice"
            for place, value in enumerate(values)
            if any(is_same(value, other) for other in values[:place])
        ]
        found = [f"{where}: {one}" for one in wrong if one is not None]
        problems += found
        if not found:
            yield key, values
    if config.kind == "robustness" and not _has_faults(config):
        yield "faults", list(ROBUSTNESS)


def _has_faults(config: StudyConfig) -> bool:
    tables = [config.grid, config.set, *(one.set for one in config.variants)]
    return any(key.partition(".")[0] == "faults" for table in tables for key in _flat(table))


def _check_keys(where: str, settings: Mapping[str, Any], problems: list[str]) -> None:
    for key, value in settings.items():
        wrong = key_problem(key) or value_problem(key, value)
        problems += [f"{where}.{key}: {wrong}"] if wrong else []


def _variants(config: StudyConfig, axes: Mapping[str, Any], problems: list[str]) -> tuple[Variant, ...]:
    found = []
    names = [one.name for one in config.variants]
    for place, one in enumerate(config.variants):
        where, settings = f"variants[{place}]", _flat(one.set)
        _check_keys(f"{where}.set", settings, problems)
        if one.name in names[:place]:
            problems.append(f"{where}.name: {shown(one.name)} is given twice")
        for axis in one.axes or ():
            if axis not in axes:
                problems.append(
                    f"{where}.axes: {shown(axis)} is not a key of the grid;  {_known(axis, axes)}"
                )
            elif axis in settings:
                problems.append(f"{where}.axes: {shown(axis)} is what the variant itself sets")
        wanted = tuple(axes) if one.axes is None else one.axes
        found.append(
            Variant(one.name, settings, tuple(key for key in axes if key in wanted and key not in settings))
        )
    return tuple(found)


def _known(axis: str, axes: Mapping[str, Any]) -> str:
    return nearest(axis, axes) if axes else "it has none but seeds"


def _missing_parts(config: StudyConfig, axes: Mapping[str, Any]) -> Iterator[str]:
    """Yield what the study's kind needs but the file lacks, and exclusions that are invalid."""
    if config.kind == "cost" and config.target is None:
        yield 'target: missing; kind = "cost" asks what an accuracy costs, such as target = 0.8'
    known = {*axes, "seed"} | ({VARIANT} if config.variants else set())
    for place, one in enumerate(config.exclude):
        for key in _flat(one):
            if key not in known:
                yield f"exclude[{place}].{key}: no key of the grid; {nearest(key, known)}"
