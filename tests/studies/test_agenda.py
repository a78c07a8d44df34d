"""What remains of a study: runs left, runs not repeated unasked, the time, and all errors beforehand."""

from __future__ import annotations

from pathlib import Path

import pytest

from fed_asi.errors import ConfigError
from fed_asi.studies import agenda as module
from fed_asi.studies.agenda import Agenda, Limits, agenda
from fed_asi.studies.grid import PlannedRun, expand
from fed_asi.studies.ledger import RUNS, Gap, Ledger
from fed_asi.studies.study_file import load_study
from study_files import STUDY, make_up, task_of, write_study


@pytest.fixture(autouse=True)
def _unchecked(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a run's start needs has tests of its own."""
    monkeypatch.setattr(module, "check_starts", lambda *_given: 1000)


def plan(folder: Path, text: str = STUDY, **limits: object) -> Agenda:
    study = load_study(write_study(folder, text))
    return agenda(study, folder / "study", Limits(**{"jobs": 2, **limits}))  # type: ignore[arg-type]


def runs(folder: Path) -> tuple[PlannedRun, ...]:
    return expand(load_study(write_study(folder)), folder / "study" / RUNS, cpus=2)


def names(found: Agenda) -> list[str]:
    return [one.run.cell.folder.name for one in found.left]


def problems_of(folder: Path, text: str = STUDY, **limits: object) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        plan(folder, text, **limits)
    return caught.value.problems


def test_at_first_everything_is_left_and_nobody_knows_how_long(tmp_path: Path) -> None:
    found = plan(tmp_path)
    assert len(names(found)) == 4
    assert list(found.lines()) == [
        f"study: {tmp_path / 'study'}, 4 runs: 0 done, 4 to do by 2 at once, the time is unknown until one has ended, "
        "about 11.7 KiB of disk"
    ]
    assert not (tmp_path / "study").exists()


def test_what_is_done_stays_done_and_what_stopped_goes_on_and_is_said(tmp_path: Path) -> None:
    first, second, *_ = runs(tmp_path)
    make_up(task_of(first))
    make_up(task_of(second), finish=False)
    found = plan(tmp_path)
    assert names(found) == ["unlimited-seed-0", "96-kib-seed-1", "unlimited-seed-1"]
    said = list(found.lines())
    assert "1 done, 3 to do by 2 at once, about 8 s" in said[0]  # 6 s a run, one of three half done
    assert said[1] == "resumes 1 run that stopped half-way: unlimited, seed 0"
    assert [line.split()[0] for line in found.listed()] == ["finished", "unfinished", "new", "new"]


def test_a_run_that_failed_is_done_again_only_where_the_user_asks(tmp_path: Path) -> None:
    planned = runs(tmp_path)
    ledger = Ledger(tmp_path / "study", load_study(tmp_path / "study.toml"), planned)
    failed, died = (planned[place].cell.folder.name for place in (0, 1))
    ledger.gaps = {failed: Gap("no memory", lasting=True), died: Gap("it died", lasting=False)}
    ledger.write()
    found = plan(tmp_path)
    assert names(found) == [died, "96-kib-seed-1", "unlimited-seed-1"]
    assert list(found.ledger.gaps) == [failed]
    assert "failed before, and is not repeated without --retry: 96 KiB, seed 0: no memory" in list(
        found.lines()
    )
    assert found.gap_lines() == ["1 gap; --retry repeats them", "  96 KiB, seed 0: no memory"]
    again = plan(tmp_path, retry=True)
    assert len(names(again)) == 4
    assert again.gap_lines() == []


def test_a_cluster_has_its_own_number_of_runs_at_once(tmp_path: Path) -> None:
    (said,) = plan(tmp_path, jobs=None, cluster=True).lines()
    assert ", 4 to do, one on every CPU of the cluster, about" in said
    (said,) = plan(tmp_path, jobs=3, cluster=True).lines()
    assert ", 4 to do by 3 at once, " in said


def test_only_some_of_them(tmp_path: Path) -> None:
    assert names(plan(tmp_path, only="96*")) == ["96-kib-seed-0", "96-kib-seed-1"]
    assert names(plan(tmp_path, only="*SEED-1")) == ["96-kib-seed-1", "unlimited-seed-1"]
    (said,) = problems_of(tmp_path, only="asi")
    assert said.startswith("--only: no run matches 'asi'; there are 96 KiB, seed 0; unlimited, seed 0; ")


def test_a_grid_of_very_many_runs_by_mistake_asks_and_says_hours_and_disk(tmp_path: Path) -> None:
    text = STUDY.replace("seed = [0, 1]", f"seed = {list(range(600))}")
    (said,) = problems_of(tmp_path, text)
    assert said == (
        "the grid has 1,200 runs: 10 h 0 min by 2 at once if a run takes 60 s, and 1.2 GiB at 1 MiB a run of disk; "
        "add --yes to start them, or remove values from the grid"
    )
    assert not (tmp_path / "study").exists()


def test_hours_that_are_known_are_asked_for_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_up(task_of(runs(tmp_path)[0]))
    monkeypatch.setattr(module, "MANY_HOURS", 8 / 3600)
    assert problems_of(tmp_path) == ["3 runs take about 9 s; add --yes to start them"]
    assert len(names(plan(tmp_path, yes=True))) == 3


def test_all_that_is_wrong_comes_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(*_given: object) -> int:
        raise ConfigError(["sharding: no", "method.layers: no"])

    monkeypatch.setattr(module, "check_starts", wrong)
    first = runs(tmp_path)[0]
    make_up(task_of(first), versions={"torch": "0.1"})
    said = problems_of(tmp_path, only="asi")
    assert [one.split(":")[0].split()[0] for one in said] == [
        str(first.cell.folder),
        "--only",
        "sharding",
        "method.layers",
    ]


def test_folders_that_are_no_runs_of_it_are_left_alone_and_named(tmp_path: Path) -> None:
    one = task_of(runs(tmp_path)[0])
    make_up(type(one)(one.config, str(tmp_path / "study" / RUNS / "old"), {}))
    assert list(plan(tmp_path).lines())[-1] == (
        f"not of this study and left alone, in {tmp_path / 'study' / RUNS}: old"
    )
