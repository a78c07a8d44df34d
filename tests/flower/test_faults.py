"""Devices that raise, exit, are killed, hang, or send what must not be averaged; and the run continues."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from fed_asi.results.store import RunStore
from runs import small

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600), pytest.mark.filterwarnings("ignore")]
ROOT = Path(__file__).parents[2]

FAULTS = {
    "1:0": ("raise", "failed", "a device's own mistake"),
    "1:1": ("exit", "killed", "worker process died"),
    "1:2": ("nan", "rejected", "holds NaN"),
    "1:3": ("shape", "rejected", "has shape"),
    "2:0": ("kill", "killed", "worker process died"),
    "2:1": ("sys-exit", "failed", "SystemExit"),
    "2:2": ("missing", "rejected", "missing tensor"),
    "2:3": ("surplus", "rejected", "surplus tensor"),
    "3:0": ("hang", "timeout", "past its deadline"),
    "3:1": ("inf", "rejected", "holds Inf"),
    "3:2": ("garbage", "rejected", "not a reply"),
    "3:3": ("exit", "killed", "worker process died"),
    "3:4": ("exit", "killed", "worker process died"),
}
RUN = """
import sys, pathlib
sys.path.insert(0, sys.argv[2])
from fed_asi.fleets.config import RunConfig
from fed_asi.flower.simulation import run_flower
import faulty_app
folder = pathlib.Path(sys.argv[1])
config = RunConfig.from_json((folder / "config.json").read_text())
run_flower(config, folder / "run", client_app=faulty_app.app)
"""


def test_every_fault_is_recorded_by_device_and_cause_and_the_run_goes_on(tmp_path: Path) -> None:
    config = small(rounds=4, cohort=6, compute={"backend": "flower", "workers": 2, "deadline_seconds": 20.0})
    (tmp_path / "config.json").write_text(config.to_json())
    (tmp_path / "faults.json").write_text(json.dumps({at: fault for at, (fault, _, _) in FAULTS.items()}))
    environment = {
        **os.environ,
        "FED_ASI_REHEARSAL": str(tmp_path / "faults.json"),
        "FED_ASI_FEATURES_DIR": str(tmp_path / "features"),
    }
    command = [sys.executable, "-c", RUN, str(tmp_path), str(Path(__file__).parents[1])]
    subprocess.run(command, check=True, cwd=ROOT, env=environment, timeout=550)
    with RunStore.read(tmp_path / "run") as store:
        rows = list(store.device_rounds())
        assert len(rows) == 24
        for row in rows:
            at = f"{row.round}:{row.partition_id}"
            if at in FAULTS:
                _, outcome, cause = FAULTS[at]
                assert row.outcome == outcome, at
                assert row.cause is not None
                assert cause in row.cause, at
            else:  # nobody else pays for it, and in the last round every worker is there again
                assert row.outcome == "trained", (at, row.cause)
        assert [record.trained for record in store.rounds()] == [0, 2, 2, 1, 6]
        assert store.exit_code() == 0
