"""What a worker process leaves behind: notes about a device at work, and about one that it had to end."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from fed_asi.errors import RunError
from fed_asi.flower import worker
from fed_asi.flower.home import word_left
from fed_asi.machine import threads
from fed_asi.workplace.address import RunAddress, address_of
from fed_asi.workplace.prepare import prepare
from runs import job, small


def test_a_device_at_work_leaves_word_until_it_is_done(tmp_path: Path) -> None:
    run = RunAddress(str(tmp_path / "workplace"), "x")
    states = tmp_path / "devices"
    assert word_left(states, job()) is None
    with worker.at_work(run, job()):
        assert word_left(states, job()) == ""
        assert word_left(states, job(round=2)) is None
    assert word_left(states, job()) is None


@pytest.mark.slow  # it ends its process
@pytest.mark.computes
def test_a_device_that_hangs_is_ended_with_its_worker(tmp_path: Path) -> None:
    code = (
        "import sys, time; from fed_asi.flower import worker\n"
        "from fed_asi.workplace.address import RunAddress; from runs import job\n"
        "worker.GRACE_SECONDS = 0.1\n"
        "with worker.at_work(RunAddress(sys.argv[1], 'x'), job(deadline_seconds=0.1)):\n"
        "    time.sleep(60)\n"
    )
    run = [sys.executable, "-c", code, str(tmp_path / "workplace")]
    root = Path(__file__).parents[2]
    ended = subprocess.run(run, check=False, env={"PYTHONPATH": f"{root}:{root / 'tests'}"})
    assert ended.returncode == worker.LATE
    assert word_left(tmp_path / "devices", job()) == "late"


def test_a_workplace_is_opened_once_and_of_other_settings_refused(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FED_ASI_FEATURES_DIR", str(tmp_path_factory.getbasetemp() / "features"))
    monkeypatch.setenv("FED_ASI_PROFILES_DIR", str(tmp_path_factory.getbasetemp() / "profiles"))
    config = small(data={"limit": 90}, cohort=3)
    run = address_of(prepare(config, tmp_path / "workplace").folder, config)
    with threads(2):
        place = worker.workplace(run)
        assert torch.get_num_threads() == 1  # the run's, for as long as the process lives
        assert worker.workplace(run) is place
        with pytest.raises(RunError, match="was prepared for other settings"):
            worker.workplace(RunAddress(run.folder, "another"))
        with pytest.raises(RunError, match="no prepared workplace"):
            worker.workplace(RunAddress(str(tmp_path / "nowhere"), run.fingerprint))


def test_a_workplace_whose_format_was_chosen_when_it_was_prepared_is_the_runs(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FED_ASI_FEATURES_DIR", str(tmp_path_factory.getbasetemp() / "features"))
    monkeypatch.setenv("FED_ASI_PROFILES_DIR", str(tmp_path_factory.getbasetemp() / "profiles"))
    config = small(data={"limit": 90}, cohort=3, storage={"frozen": "any"})
    run = address_of(prepare(config, tmp_path / "workplace").folder, config)
    with threads(1):
        assert worker.workplace(run).config.storage.form == "float32"


@pytest.mark.parametrize(
    ("asked", "own", "expected"),
    [(None, None, None), (900, None, 900), (None, 700, 700), (900, "700", 700), (500, 700, 500)],
)
def test_a_devices_own_budget_counts_where_it_is_smaller(
    asked: int | None, own: int | str | None, expected: int | None
) -> None:
    found = worker.within_own_limits(job(budget_bytes=asked), {} if own is None else {"budget": own})
    assert found == job(budget_bytes=expected)


def test_a_devices_own_ram_and_flash_count_too() -> None:
    found = worker.within_own_limits(job(ram_bytes=900, budget_bytes=90), {"ram": 700, "flash": "5000"})
    assert found == job(ram_bytes=700, flash_bytes=5000, budget_bytes=90)
    assert found.resources.whole_device
    with pytest.raises(RunError, match="this node's ram is 'device', which is not a number of bytes"):
        worker.within_own_limits(job(), {"ram": "device"})


def test_a_budget_that_is_none_is_named() -> None:
    with pytest.raises(RunError, match="budget is 'much', which is not a number of bytes"):
        worker.within_own_limits(job(), {"budget": "much"})


def test_folders_are_those_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    run = RunAddress("runs/x/workplace", "f")
    assert worker.folder_of(run) == Path("runs/x/workplace")
    assert worker.state_folder(run) == Path("runs/x/devices")
    monkeypatch.setenv("FED_ASI_WORKPLACE_DIR", "/shared")
    assert worker.folder_of(RunAddress("x", "f")) == Path("/shared/x")
    assert worker.state_folder(run) is None
    monkeypatch.setenv("FED_ASI_STATE_DIR", "/own")
    assert worker.state_folder(run) == Path("/own")
