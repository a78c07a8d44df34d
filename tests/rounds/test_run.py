"""A whole run as a user of the library calls it: what it records, and that it leaves the process unchanged."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from fed_asi.machine import threads
from fed_asi.results.store import RunStore
from fed_asi.rounds.executor import LoopExecutor
from fed_asi.rounds.run import recording, run_loop
from fed_asi.workplace.prepare import prepare
from runs import job, small


@pytest.fixture(autouse=True)
def _features(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FED_ASI_FEATURES_DIR", str(tmp_path_factory.getbasetemp() / "features"))
    monkeypatch.setenv("FED_ASI_PROFILES_DIR", str(tmp_path_factory.getbasetemp() / "profiles"))


def test_a_user_has_his_threads_back(tmp_path: Path) -> None:
    config = small(rounds=1, cohort=2)
    with threads(2):
        run_loop(config, tmp_path / "run")
        assert torch.get_num_threads() == 2
        place = prepare(config, tmp_path / "run" / "workplace")
        assert torch.get_num_threads() == 2
        jobs = [job(partition_id=i) for i in (0, 1)]
        for reply in LoopExecutor(place, tmp_path / "devices").train(jobs, place.reference):
            assert reply.stats["outcome"] == "trained"
            assert torch.get_num_threads() == 2  # between one device and the next, too


def test_how_a_run_ends_is_recorded(tmp_path: Path) -> None:
    config = small()
    with pytest.raises(KeyboardInterrupt), recording(config, tmp_path / "stopped", resume=False):
        raise KeyboardInterrupt
    with pytest.raises(OSError, match="gone"), recording(config, tmp_path / "failed", resume=False):
        raise OSError("the disk is gone")
    with RunStore.read(tmp_path / "stopped") as stopped, RunStore.read(tmp_path / "failed") as failed:
        assert (stopped.run().status, stopped.run().cause) == ("interrupted", "stopped by the user")
        assert (failed.run().status, failed.run().cause) == ("failed", "the disk is gone")
        assert failed.exit_code() == 1


def test_who_is_too_small_is_named_before_the_first_round_and_left_out(tmp_path: Path) -> None:
    """A step of the others is counted, and its bytes are in the records beside what they have."""
    group = {"count": 1, "budget": "unlimited", "batch_size": 8, "flash": "1 MiB"}
    groups = [{**group, "name": "tiny", "ram": "4 KiB"}, {**group, "name": "board", "ram": "200 KiB"}]
    run_loop(small(rounds=1, cohort=2, groups=groups), tmp_path / "run")
    with RunStore.read(tmp_path / "run") as store:
        (note,) = (one for one in store.notes() if "no plan from round 1 on" in one)
        tiny, board = store.device_rounds()
        devices = list(store.devices())
    assert note.startswith(
        "tiny: device 0 has no plan from round 1 on: ram 4.0 KiB is below the smallest step"
    )
    assert (tiny.outcome, board.outcome) == ("excluded", "trained")
    assert board.ram_bytes is not None
    assert 4 * 1024 < board.ram_bytes <= 200 * 1024 == devices[1].ram_bytes
    assert (tiny.ram_bytes, devices[0].ram_bytes, devices[0].flash_bytes) == (None, 4 * 1024, 1024 * 1024)
