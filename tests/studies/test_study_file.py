"""A study file: valid files are read as meant, and every error is one line, all at once."""

from __future__ import annotations

from pathlib import Path

import pytest

from fed_asi.errors import ConfigError
from fed_asi.studies.study_file import ROBUSTNESS, Study, load_study
from study_files import STUDY, write_study


def problems_of(folder: Path, text: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load_study(write_study(folder, text))
    return caught.value.problems


def load(folder: Path, text: str) -> Study:
    return load_study(write_study(folder, text))


def test_it_says_what_is_compared(tmp_path: Path) -> None:
    study = load(tmp_path, STUDY)
    assert (study.name, study.title, study.kind) == ("tiny", "Tiny", "quality")
    assert study.seeds == (0, 1)
    assert study.axes == {"budget": ["96 KiB", "unlimited"]}
    assert study.common == {"train.lr": 0.1}
    assert [one.axes for one in study.variants] == [("budget",)]


def test_quoted_keys_nested_tables_and_dotted_keys_are_the_same(tmp_path: Path) -> None:
    grids = [
        '"method.name" = ["asi", "head"]',
        'method.name = ["asi", "head"]',
        'method = {name = ["asi", "head"]}',
    ]
    for grid in grids:
        text = f'name = "a"\nfleet = "fleet.toml"\n[grid]\n{grid}\n'
        assert load(tmp_path, text).axes == {"method.name": ["asi", "head"]}


def test_seeds_are_the_fleets_own_where_the_grid_has_none(tmp_path: Path) -> None:
    assert load(tmp_path, 'name = "a"\nfleet = "fleet.toml"').seeds == (3,)


def test_a_variant_is_combined_with_every_axis_but_those_it_sets_or_names_others(tmp_path: Path) -> None:
    text = """
name = "a"
fleet = "fleet.toml"
[grid]
seed = [0]
budget = ["8 KiB"]
train.lr = [0.1]
[[variants]]
name = "all axes"
[[variants]]
name = "own budget"
set.budget = "4 KiB"
[[variants]]
name = "alone"
axes = []
"""
    assert [one.axes for one in load(tmp_path, text).variants] == [("budget", "train.lr"), ("train.lr",), ()]


def test_a_study_of_robustness_loses_devices_by_itself(tmp_path: Path) -> None:
    text = 'name = "a"\nfleet = "fleet.toml"\nkind = "robustness"\n'
    assert load(tmp_path, text).axes == {"faults": list(ROBUSTNESS)}
    assert load(tmp_path, f"{text}grid.faults.late = [0.0, 0.5]").axes == {"faults.late": [0.0, 0.5]}


def test_every_mistake_is_a_line(tmp_path: Path) -> None:
    text = """
name = "a/b"
flet = "fleet.toml"
kind = "speed"
target = 80
"""
    assert problems_of(tmp_path, text) == [
        "name: 'a/b' becomes a folder's name: use letters, digits, '.', '_' and '-'",
        "fleet: missing",
        "kind: unknown 'speed'; known: cost, quality, robustness",
        "target: must be less than or equal to 1, not 80",
        "flet: unknown key; did you mean fleet?",
    ]


def test_mistakes_of_the_grid_are_lines_too(tmp_path: Path) -> None:
    text = """
name = "a"
fleet = "fleet.toml"
kind = "cost"
[set]
seed = 1
train.lr = 0.1
compute.backend = "flower"
[grid]
seed = [0, 1, 0, -1]
budget = "8 KiB"
train.lr = [0.1, 0.2]
name = ["x"]
faults = [1.5]
[[variants]]
name = "one"
set.budget = "8 KB"
axes = ["budgt"]
[[variants]]
name = "one"
[[exclude]]
budgt = "8 KiB"
"""
    said = problems_of(tmp_path, text)
    assert "grid.budget: must be a list of values, not '8 KiB'; one for every run goes under [set]" in said
    assert "grid.seed: 0 is given twice" in said
    assert "grid.seed: must be a whole number from 0 to 2**63 - 1, not -1" in said
    assert "grid.name: runs are named by the study" in said
    assert "grid.faults: must be a share from 0 to 1, not 1.5" in said
    assert "set.seed: seeds belong under [grid], as every variant has the same: seed = [0, 1, 2]" in said
    assert "set.compute.backend: a study's runs are plain loops, side by side" in said
    assert "grid.train.lr: set for every run under [set] too" in said
    assert any(one.startswith("variants[0].set.budget: size '8 KB': KB means") for one in said)
    assert any(one.startswith("variants[0].axes: 'budgt' is not a key of the grid") for one in said)
    assert "variants[1].name: 'one' is given twice" in said
    assert 'target: missing; kind = "cost" asks what an accuracy costs, such as target = 0.8' in said
    assert any(one.startswith("exclude[0].budgt: no key of the grid; ") for one in said)
    assert len(said) == 13
    assert not any("\n" in one for one in said)


def test_a_fleet_file_that_is_not_there_or_a_seed_that_is_none_is_one_line(tmp_path: Path) -> None:
    (said,) = problems_of(tmp_path, 'name = "a"\nfleet = "flet.toml"')
    assert said.endswith("flet.toml; did you mean fleet.toml or study.toml?")
    (tmp_path / "odd.toml").write_text('seed = "x"')
    assert problems_of(tmp_path, 'name = "a"\nfleet = "odd.toml"') == [
        "odd.toml: seed: must be a whole number from 0 to 2**63 - 1, not 'x'"
    ]
