"""The remaining runs: each ends as a run or as a gap with its cause; a full disk ends the study."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from fed_asi.errors import RunError
from fed_asi.studies.estimate import Clock
from fed_asi.studies.grid import expand
from fed_asi.studies.ledger import RUNS, Ledger, study_runs
from fed_asi.studies.one_run import Ended
from fed_asi.studies.runner import Runner
from fed_asi.studies.standing import stand
from fed_asi.studies.study_file import load_study
from study_files import MadeUp, write_study


@pytest.fixture
def runner(tmp_path: Path) -> Runner:
    study = load_study(write_study(tmp_path))
    runs = expand(study, tmp_path / "study" / RUNS, cpus=2)
    ledger = Ledger(tmp_path / "study", study, runs)
    ledger.write()
    return Runner(ledger, stand(runs)[0], Clock(), jobs=2)


def do(runner: Runner, workers: MadeUp) -> str:
    out = io.StringIO()
    runner.run(workers, Console(file=out, width=200))
    return out.getvalue()


def test_every_run_is_done_once_in_order(runner: Runner) -> None:
    workers = MadeUp(at_once=2)
    said = do(runner, workers)
    assert workers.asked == [run.cell.folder.name for run in runner.ledger.runs]
    assert workers.stopped
    assert all(cell.gap is None for cell in study_runs(runner.ledger.folder).cells)
    assert "96 KiB, seed 0: done, accuracy 50.0 %" in said
    assert said.splitlines()[-1] == "  4 of 4 runs done"
    assert ", about 0 s left" in said


def test_a_failed_run_is_a_named_gap_and_the_others_go_on(runner: Runner) -> None:
    ways = {"unlimited-seed-0": Ended("no memory"), "96-kib-seed-1": Ended("it died", died=True)}
    said = do(runner, MadeUp(lambda name: ways.get(name, Ended())))
    cells = study_runs(runner.ledger.folder).cells
    assert [cell.gap for cell in cells] == [None, "no memory", "it died", None]
    assert {name: gap.lasting for name, gap in runner.ledger.gaps.items()} == {
        "unlimited-seed-0": True,
        "96-kib-seed-1": False,
    }
    assert "unlimited, seed 0: gap: no memory" in said
    assert "2 of 4 runs done, 2 gaps" in said


def test_a_full_disk_ends_the_study_and_is_no_lasting_gap(runner: Runner) -> None:
    workers = MadeUp(
        lambda name: Ended("cannot write x: no space", full=True) if "seed-1" in name else Ended()
    )
    with pytest.raises(RunError, match="the disk is full: cannot write x"):
        do(runner, workers)
    assert workers.stopped
    assert len(workers.asked) == 3
    assert not any(gap.lasting for gap in runner.ledger.gaps.values())


def test_an_interrupt_stops_the_workers(runner: Runner) -> None:
    def stop(_name: str) -> Ended:
        raise KeyboardInterrupt

    workers = MadeUp(stop)
    with pytest.raises(KeyboardInterrupt):
        do(runner, workers)
    assert workers.stopped
    assert runner.ledger.gaps == {}


def test_a_task_carries_absolute_folders_and_what_a_node_must_know(
    runner: Runner, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FED_ASI_DATA_DIR", "images")
    monkeypatch.setenv("FED_ASI_WORKPLACE_DIR", "elsewhere")
    runner.data_dir = Path("own")
    task = runner._task(runner.ledger.runs[0])
    assert task.data_dir == str(tmp_path / "own")
    assert Path(task.folder).is_absolute()
    assert task.environment["FED_ASI_DATA_DIR"] == str(tmp_path / "images")
    assert task.environment["FED_ASI_WORKPLACE_DIR"] is None
    assert task.environment["FED_ASI_PROFILES_DIR"] == str(tmp_path / "study" / "profiles")
