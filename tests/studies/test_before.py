"""What start.py finds about a run is said about every run of a study before the first, once each, and cheaply."""

from __future__ import annotations

from pathlib import Path

import pytest

from fed_asi.errors import ConfigError
from fed_asi.studies import before
from fed_asi.studies.before import check_starts
from fed_asi.studies.grid import PlannedRun, expand
from fed_asi.studies.study_file import load_study
from study_files import write_study

HEAD = 'name = "a"\nfleet = "fleet.toml"\n[grid]\n'


def runs_of(folder: Path, grid: str) -> tuple[PlannedRun, ...]:
    return expand(load_study(write_study(folder, HEAD + grid)), folder, cpus=2)


def problems_of(runs: tuple[PlannedRun, ...]) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        check_starts(runs, None, None)
    return caught.value.problems


def test_all_that_is_wrong_is_said_at_once_with_the_runs_that_have_it(tmp_path: Path) -> None:
    grid = "seed = [0, 1]\nsharding.minimum = [12, 500]\nmethod.layers = [1, 99]\n"
    said = problems_of(runs_of(tmp_path, grid))
    assert len(said) == 2
    sharding, layers = sorted(said, key=lambda one: one.startswith("method.layers"))
    assert sharding.startswith("sharding: ")
    assert sharding.endswith("(minimum 500, layers 1, seed 0 and 3 more)")
    assert layers.startswith("method.layers: ")
    assert layers.endswith("(minimum 12, layers 99, seed 0 and 3 more)")


def test_a_data_set_that_is_not_there_is_one_line_asked_for_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    load = before.data.load
    monkeypatch.setattr(before.data, "load", lambda name, folder: asked.append(name) or load(name, folder))
    runs = runs_of(tmp_path, 'seed = [0, 1]\ndata.source = ["none.npz"]\n')
    (said,) = problems_of(runs)
    assert said.startswith("no file ")
    assert len(asked) == 1


def test_each_network_is_built_once_and_its_size_is_returned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    built: list[object] = []
    build = before.build_model
    monkeypatch.setattr(before, "build_model", lambda *given: built.append(given) or build(*given))
    runs = runs_of(tmp_path, 'seed = [0, 1, 2]\nbudget = ["8 KiB", "16 KiB"]\nmethod.layers = [1, 2]\n')
    assert check_starts(runs, None, None) > 10_000
    assert len(built) == 2


def test_no_runs_have_nothing_wrong(tmp_path: Path) -> None:
    assert check_starts([], None, None) == 0
