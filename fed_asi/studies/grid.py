"""From a study's grid to its runs, each with its checked settings, or to all problems, each once."""

from __future__ import annotations

import copy
import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from math import prod
from pathlib import Path
from typing import Any

from fed_asi.errors import ConfigError, FedAsiError, nearest
from fed_asi.fleets.config import RunConfig
from fed_asi.fleets.file import config_of
from fed_asi.fleets.overrides import drop_
from fed_asi.studies.cells import Cell
from fed_asi.studies.keys import VARIANT, in_order, is_same, label_of, set_, setting_of, slug_of
from fed_asi.studies.study_file import Study, Variant
from fed_asi.units import shown

LONGEST_NAME = 80  # characters of a folder's name, so that paths stay short enough anywhere


@dataclass(frozen=True, slots=True)
class PlannedRun:
    """One run of a study: its cell in the comparison, and all of its settings."""

    cell: Cell
    config: RunConfig

    @property
    def label(self) -> str:
        """A unique name, for people."""
        return f"{self.cell.variant}, seed {self.cell.seed}"


@dataclass(frozen=True, slots=True)
class _Point:
    """A point of the grid, without its seed. settings: of the cell. values: of every key that is set."""

    label: str
    settings: Mapping[str, Any]
    values: Mapping[str, Any]


def count(study: Study) -> int:
    """Return the number of runs in the grid before exclusions, without creating any."""
    return len(study.seeds) * sum(prod(len(study.axes[key]) for key in one.axes) for one in study.variants)


def expand(
    study: Study, folder: Path, *, data_dir: Path | None = None, cpus: int | None = None
) -> tuple[PlannedRun, ...]:
    """Return the runs of a study: all variants with the first seed, then all with the next.

    folder: the parent of the run folders. data_dir, cpus: as in `load_config`.
    Raises ConfigError with every problem of the grid and of each run's settings.
    """
    points = [point for variant in study.variants for point in _points(study, variant)]
    kept = {seed: [one for one in points if not _excluded(study, one, seed)] for seed in study.seeds}
    problems = [*_grid_problems(study, points, kept)]
    left = [point for point in points if any(point in row for row in kept.values())]
    configs: dict[str, RunConfig] = {}

    def make(point: _Point) -> None:
        configs[point.label] = _config(study, point, data_dir, cpus)

    problems += grouped(((one.label, one) for one in left), make)
    if problems:
        raise ConfigError(problems)
    names = folder_names([point.label for point in left])
    return tuple(
        _planned(point, seed, configs[point.label], folder / f"{names[point.label]}-seed-{seed}")
        for seed, row in kept.items()
        for point in row
    )


def _planned(point: _Point, seed: int, config: RunConfig, folder: Path) -> PlannedRun:
    settings = {key: setting_of(value) for key, value in point.settings.items()}
    own = config.model_copy(update={"seed": seed, "name": folder.name})
    return PlannedRun(Cell(point.label, seed, settings, folder), own)


def _points(study: Study, variant: Variant) -> Iterator[_Point]:
    for values in product(*(study.axes[key] for key in variant.axes)):
        axes = dict(zip(variant.axes, values, strict=True))
        named = {VARIANT: variant.name} if variant.name is not None else {}
        words = [*named.values(), *(label_of(key, value, variant.axes) for key, value in axes.items())]
        label = ", ".join(words) or str(study.fleet.get("name", study.name))
        yield _Point(label, {**named, **axes}, {**study.common, **axes, **variant.settings})


def _excluded(study: Study, point: _Point, seed: int) -> bool:
    return any(_matches(one, point, seed) for one in study.exclusions)


def _matches(exclusion: Mapping[str, Any], point: _Point, seed: int) -> bool:
    own = {**point.settings, "seed": seed}
    return all(key in own and is_same(value, own[key]) for key, value in exclusion.items())


def _grid_problems(
    study: Study, points: Sequence[_Point], kept: Mapping[int, Sequence[_Point]]
) -> Iterator[str]:
    for place, one in enumerate(study.exclusions):
        if not any(_matches(one, point, seed) for point in points for seed in study.seeds):
            yield f"exclude[{place}]: no run has {', '.join(f'{key} = {shown(value)}' for key, value in one.items())}"
    for label, times in Counter(point.label for point in points).items():
        if times > 1:
            yield f"variants: {times} of them come out as {shown(label)}; name them apart"
    labels = {point.label for row in kept.values() for point in row}
    if not labels:
        yield "exclude: no run is left"
    elif study.baseline is not None and study.baseline not in labels:
        hint = nearest(study.baseline, labels)
        if hint.startswith("known") and len(labels) > 12:
            hint = f"there are {len(labels)}, such as {shown(min(labels))}"
        yield f"baseline: {shown(study.baseline)} is not a variant of the grid;  {hint}"


def grouped(runs: Iterable[tuple[str, Any]], check: Callable[[Any], object]) -> list[str]:
    """Return each problem that a check raises for any run, once, with the labels of its runs.

    runs: (label, argument of the check).
    """
    found: dict[str, list[str]] = {}
    total = 0
    for label, run in runs:
        total += 1
        try:
            check(run)
        except FedAsiError as error:
            for problem in error.problems if isinstance(error, ConfigError) else [str(error)]:
                found.setdefault(problem, []).append(label)
    return [
        problem if len(labels) == total else f"{problem} ({_some(labels)})"
        for problem, labels in found.items()
    ]


def _some(labels: Sequence[str]) -> str:
    return labels[0] + (f" and {len(labels) - 1} more" if len(labels) > 1 else "")


def _config(study: Study, point: _Point, data_dir: Path | None, cpus: int | None) -> RunConfig:
    """Return the settings of a point of the grid. Raises ConfigError with everything that is wrong with them."""
    raw = copy.deepcopy(dict(study.fleet))
    compute = raw.get("compute")
    if isinstance(compute, dict):  # the study decides where and how fast it runs
        for key in ("backend", "workers", "cpus_per_client", "gpus_per_client", "ray_address"):
            compute.pop(key, None)
    raw |= {"seed": study.seeds[0], "name": "study"}
    problems = [f"unset: {wrong}" for key in study.unset if (wrong := drop_(raw, key)) is not None]
    for key, value in in_order(point.values):
        if (wrong := set_(raw, key, copy.deepcopy(value))) is not None:
            problems.append(f"{key}: {wrong}")
    if isinstance(raw.setdefault("compute", {}), dict):
        raw["compute"]["backend"] = "loop"
    return config_of(
        raw, study.folder, [*point.values, *study.unset], problems, said="", cpus=cpus, data_dir=data_dir
    )


def folder_names(labels: Sequence[str]) -> dict[str, str]:
    """Return a folder name for each label; labels that would share one get a hash of their text appended."""
    slugs = {label: slug_of(label) for label in labels}
    times = Counter(slugs.values())
    return {
        label: slug
        if slug and times[slug] == 1 and len(slug) <= LONGEST_NAME
        else "-".join(filter(None, [slug[:LONGEST_NAME], _short_hash(label)]))
        for label, slug in slugs.items()
    }


def _short_hash(label: str) -> str:
    return hashlib.sha256(label.encode(errors="surrogatepass")).hexdigest()[:8]
