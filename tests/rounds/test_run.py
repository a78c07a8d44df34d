"""A whole run as a library's user calls it: what it records, and that it leaves his process as it was."""

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
