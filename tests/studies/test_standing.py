"""The state of runs; one with other settings or another version is named, with the differences."""

from __future__ import annotations

from pathlib import Path

import pytest

from fed_asi.results.versions import versions
from fed_asi.studies.grid import PlannedRun, expand
from fed_asi.studies.standing import stand
from fed_asi.studies.study_file import load_study
from study_files import STUDY, make_up, task_of, write_study


@pytest.fixture
def runs(tmp_path: Path) -> tuple[PlannedRun, ...]:
    return expand(load_study(write_study(tmp_path)), tmp_path / "runs", cpus=2)


def test_runs_are_new_unfinished_or_finished(runs: tuple[PlannedRun, ...]) -> None:
    make_up(task_of(runs[0]))
    make_up(task_of(runs[1]), finish=False)
    runs[2].cell.folder.mkdir(parents=True)
    (runs[2].cell.folder / "run.sqlite").touch()  # killed before its first line
    found, problems = stand(runs)
    assert problems == []
    assert [one.state for one in found] == ["finished", "unfinished", "new", "new"]
    assert [one.share for one in found] == [1.0, 0.5, 0.0, 0.0]
    assert found[0].seconds == 6.0


def test_other_settings_are_named(runs: tuple[PlannedRun, ...], tmp_path: Path) -> None:
    make_up(task_of(runs[0]))
    other = write_study(tmp_path, STUDY.replace("train.lr = 0.1", "train.lr = 0.2"))
    found, problems = stand(expand(load_study(other), tmp_path / "runs", cpus=2))
    assert len(found) == 3
    (said,) = problems
    assert "96-kib-seed-0 holds a run of other settings (train.lr 0.1, not 0.2): take another --out" in said


@pytest.mark.parametrize("name", ["torch", "fed-asi", "numpy"])
def test_another_version_is_named(runs: tuple[PlannedRun, ...], name: str) -> None:
    make_up(task_of(runs[0]), versions={**versions(), name: "0.0.1"})
    _, (said,) = stand(runs)
    assert f"holds a run of another version ({name} 0.0.1, here {versions()[name]})" in said


def test_a_version_that_decides_no_bits_of_a_plain_loop_may_differ(runs: tuple[PlannedRun, ...]) -> None:
    make_up(task_of(runs[0]), versions={**versions(), "ray": "0.0.1"})
    found, problems = stand(runs)
    assert (len(found), problems) == (4, [])


def test_a_file_that_is_no_run_is_one_line(runs: tuple[PlannedRun, ...]) -> None:
    runs[0].cell.folder.mkdir(parents=True)
    (runs[0].cell.folder / "run.sqlite").write_text("x" * 5000)
    _, (said,) = stand(runs)
    assert str(runs[0].cell.folder) in said
    assert "\n" not in said
