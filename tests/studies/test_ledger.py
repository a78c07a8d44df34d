"""study.json: what is written is what the statistics read, of unfinished studies too; anything else is one line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fed_asi.errors import RunError
from fed_asi.results.store import RunStore
from fed_asi.studies.grid import expand
from fed_asi.studies.ledger import FILE_NAME, RUNS, Gap, Ledger, strangers, study_runs
from fed_asi.studies.one_run import Task
from fed_asi.studies.study_file import load_study
from study_files import make_up, task_of, write_study


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    study = load_study(write_study(tmp_path))
    folder = tmp_path / "study"
    return Ledger(folder, study, expand(study, folder / RUNS, cpus=2))


def gaps(ledger: Ledger) -> list[str | None]:
    return [cell.gap for cell in study_runs(ledger.folder).cells]


def test_a_study_half_way_is_read_with_a_reason_for_every_run_that_is_none(ledger: Ledger) -> None:
    first, second, third, _ = ledger.runs
    make_up(task_of(first))
    make_up(task_of(second), finish=False)
    ledger.gaps[third.cell.folder.name] = Gap("no memory", lasting=True)
    ledger.write()
    found = study_runs(ledger.folder)
    assert (found.name, found.title, found.kind) == ("tiny", "Tiny", "quality")
    assert (found.baseline, found.target) == ("unlimited", None)
    assert [cell.variant for cell in found.cells] == ["96 KiB", "unlimited", "96 KiB", "unlimited"]
    assert [cell.settings for cell in found.cells][:2] == [{"budget": "96 KiB"}, {"budget": "unlimited"}]
    assert gaps(ledger) == [None, "stopped after 1 of 2 rounds", "no memory", "not begun"]
    assert found.cells[0].folder == first.cell.folder
    assert study_runs(ledger.folder / FILE_NAME) == found


def test_a_run_that_is_being_written_says_so(ledger: Ledger) -> None:
    ledger.write()
    make_up(task_of(ledger.runs[0]), finish=False)
    with RunStore.open(ledger.runs[0].cell.folder):
        assert gaps(ledger)[0] == "at work after 1 of 2 rounds"


def test_a_finished_run_is_no_gap_whatever_was_noted_before(ledger: Ledger) -> None:
    make_up(task_of(ledger.runs[0]))
    ledger.gaps[ledger.runs[0].cell.folder.name] = Gap("once", lasting=False)
    ledger.write()
    assert gaps(ledger)[0] is None


def test_gaps_are_kept_from_one_time_to_the_next_but_not_those_of_other_runs(ledger: Ledger) -> None:
    own = ledger.runs[0].cell.folder.name
    ledger.gaps = {own: Gap("died", lasting=False), "another": Gap("gone", lasting=True)}
    ledger.write()
    again = Ledger(ledger.folder, ledger.study, ledger.runs)
    again.read_gaps()
    assert again.gaps == {own: Gap("died", lasting=False)}


@pytest.mark.parametrize("text", ["", "[]", '{"version": 2}', '{"version": 1}', "nothing"])
def test_what_is_no_study_is_one_line(tmp_path: Path, text: str) -> None:
    (tmp_path / FILE_NAME).write_text(text)
    with pytest.raises(RunError) as raised:
        study_runs(tmp_path)
    assert str(tmp_path) in str(raised.value)
    assert "\n" not in str(raised.value)


def test_no_study_at_all_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"no study in .*: it has no study\.json"):
        study_runs(tmp_path)


def test_run_folders_of_other_studies_are_named(ledger: Ledger) -> None:
    make_up(task_of(ledger.runs[0]))
    make_up(Task(ledger.runs[0].config.to_json(), f"{ledger.folder}/{RUNS}/old", {}))
    (ledger.folder / RUNS / "empty").mkdir()
    assert list(strangers(ledger.folder, ledger.runs)) == ["old"]


def test_it_is_versioned_and_names_folders_from_its_own(ledger: Ledger) -> None:
    ledger.write()
    content = json.loads((ledger.folder / FILE_NAME).read_text())
    assert content["version"] == 1
    assert content["cells"][0]["folder"] == "runs/96-kib-seed-0"
