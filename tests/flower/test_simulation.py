"""Flower on Ray against the plain loop: the same weights and records to the bit, on any number of workers."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from fed_asi.results.store import RunStore
from fed_asi.rounds.run import run_loop
from runs import records, small

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600), pytest.mark.filterwarnings("ignore")]
ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _features(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FED_ASI_FEATURES_DIR", str(tmp_path_factory.getbasetemp() / "features"))


def flower(folder: Path, **changes: object) -> None:
    """Do a run in a process of its own, as Ray wants a driver to be, and leave nothing behind."""
    (folder.parent / f"{folder.name}.json").write_text(small(**changes).to_json())
    code = (
        "import sys, pathlib; from fed_asi.fleets.config import RunConfig\n"
        "from fed_asi.flower.simulation import run_flower\n"
        "folder = pathlib.Path(sys.argv[1])\n"
        "text = (folder.parent / f'{folder.name}.json').read_text()\n"
        "run_flower(RunConfig.from_json(text), folder)\n"
    )
    subprocess.run([sys.executable, "-c", code, str(folder)], check=True, cwd=ROOT, timeout=550)


ASI = {"name": "asi", "layers": 2}


def test_loop_and_any_number_of_workers_give_the_same_bits(tmp_path: Path) -> None:
    run_loop(small(method=ASI, rounds=3), tmp_path / "loop")
    expected = records(tmp_path / "loop")
    for name, workers in (("on-1", 1), ("on-2", 2), ("on-4", 4), ("on-4-again", 4)):
        flower(
            tmp_path / name,
            method=ASI,
            rounds=3,
            compute={"backend": "flower", "workers": workers},
        )
        assert records(tmp_path / name) == expected
    with RunStore.read(tmp_path / "on-2") as store:
        assert store.exit_code() == 0
        assert any(row.outcome == "trained" for row in store.device_rounds())


@pytest.mark.parametrize("whose", ["device", "federated"])
def test_calibration_where_the_images_are_gives_the_same_bits(whose: str, tmp_path: Path) -> None:
    method = {
        "name": "planner",
        "methods": ["asi", "vanilla"],
        "layers": 1,
        "centered": None,
        "calibration": whose,
        "calibration_images": 16,
        "calibration_devices": 3,
    }
    run_loop(small(method=method), tmp_path / "loop")
    flower(tmp_path / "flower", method=method, compute={"backend": "flower", "workers": 2})
    assert records(tmp_path / "flower") == records(tmp_path / "loop")


def test_no_process_is_left(tmp_path: Path) -> None:
    flower(tmp_path / "run", rounds=1, compute={"backend": "flower"})
    listed = subprocess.run(["ps", "-A", "-o", "args="], capture_output=True, text=True, check=True).stdout
    assert f"fed-asi-{os.getpid()}" not in listed


def test_bytes_reported_are_those_on_the_wire() -> None:
    import torch
    from flwr.common.serde import recorddict_to_proto

    from fed_asi.devices.job import Job
    from fed_asi.devices.reply import Reply, payload_bytes
    from fed_asi.flower.messages import pack, read_reply, write_job, write_reply
    from fed_asi.workplace.address import RunAddress

    tensors = {"conv.weight": torch.randn(64, 32, 3, 3), "conv.bias": torch.randn(64)}
    job = Job(3, 1, 65536, 32, None, 0.05)
    down = len(
        recorddict_to_proto(write_job(job, pack(tensors), RunAddress("/runs/x", "abc"))).SerializeToString()
    )
    assert payload_bytes(tensors, job.to_json()) <= down <= 1.02 * payload_bytes(tensors, job.to_json()) + 512
    sent = Reply(1, {"outcome": "trained", "num_examples": 3}, tensors, tuple(tensors), host_seconds=1.5)
    content = write_reply(sent)
    got = read_reply(job, content, 1 << 20)
    up = len(recorddict_to_proto(content).SerializeToString())
    assert got.bytes_up is not None
    assert got.bytes_up <= up <= 1.02 * got.bytes_up + 512
    assert got.host_seconds == 1.5
    assert all(torch.equal(got.tensors[name], tensors[name]) for name in tensors)
