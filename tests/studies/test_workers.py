"""Worker processes: runs side by side, one that dies is named and replaced, and none is left behind."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from fed_asi.results.lock import is_locked
from fed_asi.results.store import RunStore
from fed_asi.studies.grid import PlannedRun, expand
from fed_asi.studies.one_run import Ended, Said
from fed_asi.studies.study_file import load_study
from fed_asi.studies.workers import LocalWorkers, death_of
from study_files import STUDY, task_of, write_study


@pytest.mark.parametrize(
    ("code", "cause"),
    [
        (-9, "its worker process was ended by SIGKILL; the system does that where memory runs out"),
        (-11, "its worker process was ended by SIGSEGV"),
        (-99, "its worker process was ended by signal 99"),
        (75, "its worker process ended with exit code 75"),
    ],
)
def test_a_death_is_named(code: int, cause: str) -> None:
    assert death_of(code) == cause


def ends(workers: LocalWorkers, count: int, tell: list[Said] | None = None) -> dict[str, Ended]:
    """Return how the next so many runs end."""
    found: dict[str, Ended] = {}
    until = time.monotonic() + 250
    while len(found) < count:
        assert time.monotonic() < until
        for name, event in workers.events(0.2):
            if isinstance(event, Ended):
                found[name] = event
            elif tell is not None:
                tell.append(event)
    return found


def runs(folder: Path, text: str = STUDY) -> tuple[PlannedRun, ...]:
    return expand(load_study(write_study(folder, text)), folder / "runs")


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_worker_does_run_after_run_and_one_that_dies_is_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FED_ASI_FEATURES_DIR", str(tmp_path / "features"))
    one, two, three, wrong = runs(tmp_path)
    workers = LocalWorkers(1)
    try:
        told: list[Said] = []
        workers.begin("one", task_of(one))
        assert workers.free() == 0
        assert ends(workers, 1, told) == {"one": Ended()}
        assert "accuracy" in told[-1].text
        (first,) = workers.pids()
        workers.begin("two", task_of(two))
        assert workers.pids() == [first]
        os.kill(first, signal.SIGKILL)
        assert ends(workers, 1) == {"two": Ended(death_of(-9), died=True)}
        workers.begin("three", task_of(three))
        assert workers.pids() != [first]
        assert ends(workers, 1) == {"three": Ended()}
        os.kill(workers.pids()[0], signal.SIGKILL)  # while it has nothing to do: no run's fault
        time.sleep(0.5)
        workers.begin("two again", task_of(two))
        assert ends(workers, 1) == {"two again": Ended()}
        config = wrong.config.model_copy(
            update={"data": wrong.config.data.model_copy(update={"source": "x.npz"})}
        )
        workers.begin("wrong", task_of(PlannedRun(wrong.cell, config)))
        (failed,) = ends(workers, 1).values()
        assert failed.cause is not None
        assert failed.cause.startswith("no file 'x.npz'")
        assert not failed.died
    finally:
        pids = workers.pids()
        workers.stop()
    assert not any(is_alive(pid) for pid in pids)
    with RunStore.read(two.cell.folder) as store:
        assert store.run().status == "finished"


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_stopping_leaves_records_in_order_and_no_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FED_ASI_FEATURES_DIR", str(tmp_path / "features"))
    one, *_ = runs(tmp_path, STUDY.replace("train.lr = 0.1", "train.epochs = 50\nrounds = 50"))
    workers = LocalWorkers(2)
    workers.begin("one", task_of(one))
    until = time.monotonic() + 250
    while not any(isinstance(event, Said) and event.round for _, event in workers.events(0.2)):
        assert time.monotonic() < until
    pids = workers.pids()
    workers.stop()
    assert not any(is_alive(pid) for pid in pids)
    assert not is_locked(one.cell.folder)
    with RunStore.read(one.cell.folder) as store:
        assert store.run().status == "interrupted"


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
