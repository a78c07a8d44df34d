"""Runs of a study on Ray on this machine: the same bits as the plain loop, and a worker's death is named."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from fed_asi.studies.ledger import study_runs
from fed_asi.studies.one_run import Task, do_run
from runs import records
from study_files import write_study

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600), pytest.mark.filterwarnings("ignore")]
ROOT = Path(__file__).parents[2]


def test_a_study_on_ray_has_the_bits_of_one_on_this_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FED_ASI_FEATURES_DIR", str(tmp_path / "features"))
    write_study(tmp_path)
    command = [
        sys.executable,
        "-m",
        "fed_asi",
        "study",
        str(tmp_path / "study.toml"),
        "--out",
        str(tmp_path / "ray"),
    ]
    done = subprocess.run(
        [*command, "--ray-address", "local", "--jobs", "2"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    cells = study_runs(tmp_path / "ray" / "tiny").cells
    assert [cell.gap for cell in cells] == [None] * 4
    from fed_asi.results.store import RunStore

    with RunStore.read(cells[0].folder) as store:
        config = store.config()
    do_run(Task(config.to_json(), str(tmp_path / "alone"), {}), lambda _said: None)
    assert records(cells[0].folder) == records(tmp_path / "alone")
