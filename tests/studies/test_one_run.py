"""One run of a study: started, resumed, or a cause; never an exception, and the same bits as `fed-asi run`."""

from __future__ import annotations

import errno
import os
import sqlite3
from pathlib import Path

import pytest

from fed_asi.errors import RunError
from fed_asi.results.store import RunStore
from fed_asi.rounds.run import run_loop
from fed_asi.studies import one_run
from fed_asi.studies.one_run import Ended, Said, Task, do_run, is_full
from runs import records, small

CONFIG = small(method={"layers": 1, "calibration_images": 8})


@pytest.fixture(autouse=True)
def _features(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FED_ASI_FEATURES_DIR", str(tmp_path_factory.getbasetemp() / "features"))
    monkeypatch.setenv("FED_ASI_PROFILES_DIR", str(tmp_path_factory.getbasetemp() / "profiles"))


def task(folder: Path, **environment: str | None) -> Task:
    return Task(CONFIG.to_json(), str(folder), environment)


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> object:
    """The records of the run that no study does."""
    home = tmp_path_factory.mktemp("alone")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FED_ASI_FEATURES_DIR", str(home / "features"))
        run_loop(CONFIG, home / "run")
    return records(home / "run")


def test_it_is_the_run_that_fed_asi_run_does_and_tells_its_rounds(alone: object, tmp_path: Path) -> None:
    said: list[Said] = []
    folder = tmp_path / "study"
    folder.mkdir()
    (folder / "run.sqlite").touch()  # it was killed before its first line
    (folder / "workplace").mkdir()
    assert do_run(task(folder), said.append) == Ended()
    assert records(folder) == alone
    accuracies = [one for one in said if one.text.startswith("accuracy")]
    assert [(one.round, one.rounds) for one in accuracies] == [(1, 2), (2, 2)]
    assert said[0].text == "data: digits"


def test_what_stopped_goes_on(alone: object, tmp_path: Path) -> None:
    def stop(said: Said) -> None:
        if said.round == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        do_run(task(tmp_path / "study"), stop)
    with RunStore.read(tmp_path / "study") as store:
        assert store.run().status == "interrupted"
        assert len(store.rounds()) == 2
    assert do_run(task(tmp_path / "study"), lambda _said: None) == Ended()
    assert records(tmp_path / "study") == alone


def test_an_error_is_a_cause_on_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_args: object, **_settings: object) -> None:
        raise RunError("no\nroom") from OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(one_run, "run_loop", fail)
    assert do_run(task(tmp_path / "study"), lambda _said: None) == Ended("no room", full=True)


def test_a_mistake_of_this_program_is_a_cause_too_and_its_traceback_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(one_run, "run_loop", lambda *_args, **_settings: {}["x"])
    ended = do_run(task(tmp_path / "study"), lambda _said: None)
    assert ended.cause == (
        f"an error in this program: KeyError: 'x'; details in {tmp_path / 'study' / 'mistake.txt'}"
    )
    assert "Traceback" in (tmp_path / "study" / "mistake.txt").read_text()


def test_the_environment_is_the_tasks_and_is_given_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[str, str | None] = {}

    def look(*_args: object, **_settings: object) -> None:
        seen.update({name: os.environ.get(name) for name in ("FED_ASI_A", "FED_ASI_B")})

    monkeypatch.setattr(one_run, "run_loop", look)
    monkeypatch.setenv("FED_ASI_B", "before")
    do_run(task(tmp_path, FED_ASI_A="1", FED_ASI_B=None), lambda _said: None)
    assert seen == {"FED_ASI_A": "1", "FED_ASI_B": None}
    assert os.environ["FED_ASI_B"] == "before"
    assert "FED_ASI_A" not in os.environ


def test_a_full_disk_is_told_from_other_errors_however_deep_it_lies() -> None:
    assert is_full(OSError(errno.ENOSPC, "x"))
    assert not is_full(OSError(errno.EACCES, "x"))
    assert is_full(sqlite3.OperationalError("database or disk is full"))
    outer = RunError("records")
    outer.__cause__ = sqlite3.OperationalError("database or disk is full")
    assert is_full(outer)
    assert not is_full(RunError("the disk is full of good intentions"))
