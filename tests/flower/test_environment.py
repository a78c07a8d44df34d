"""What Flower and Ray find in the environment."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from fed_asi.flower.environment import KEEPS_GPUS, QUIET, set_environment


def test_flowers_folder_is_the_runs_own_and_nothing_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in (*QUIET, *KEEPS_GPUS, "FLWR_HOME"):
        monkeypatch.setenv(name, "before")
    set_environment(tmp_path / "flower")
    assert os.environ["FLWR_HOME"] == str(tmp_path / "flower")
    assert (tmp_path / "flower").is_dir()
    assert os.environ["FLWR_TELEMETRY_ENABLED"] == "0"
    assert os.environ["RAY_USAGE_STATS_ENABLED"] == "0"
    assert [os.environ[name] for name in KEEPS_GPUS] == ["0", "0"]
    set_environment(tmp_path / "flower", named_gpu=True)
    assert [os.environ[name] for name in KEEPS_GPUS] == ["1", "1"]
