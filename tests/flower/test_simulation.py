"""Flower on Ray against the plain loop: the same weights and records to the bit, on any number of workers."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from fed_asi.errors import ConfigError, RunError
from fed_asi.fleets.gpu_share import workers
from fed_asi.flower.simulation import backend_config, first_cause, run_flower
from fed_asi.results.store import RunStore
from fed_asi.rounds.run import run_loop
from flower_runs import flower
from runs import records, small

pytestmark = [pytest.mark.timeout(600), pytest.mark.filterwarnings("ignore")]
ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _features(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FED_ASI_FEATURES_DIR", str(tmp_path_factory.getbasetemp() / "features"))


ASI = {"name": "asi-published", "layers": 2}  # whose factors outlive a round


@pytest.mark.slow
def test_loop_and_any_number_of_workers_give_the_same_bits(tmp_path: Path) -> None:
    run_loop(small(method=ASI, rounds=3), tmp_path / "loop")
    expected = records(tmp_path / "loop")
    for name, count in (("on-1", 1), ("on-2", 2), ("on-4", 4)):
        flower(
            tmp_path / name,
            method=ASI,
            rounds=3,
            compute={"backend": "flower", "workers": count},
        )
        assert records(tmp_path / name) == expected
    with RunStore.read(tmp_path / "on-2") as store:
        assert store.exit_code() == 0
        assert any(row.outcome == "trained" for row in store.device_rounds())


@pytest.mark.slow
def test_twins_are_the_same_on_every_back_end_and_change_no_weight(tmp_path: Path) -> None:
    groups = [
        {"name": "starved", "count": 1, "budget": "200 B", "batch_size": 16, "micro_batch": 4},
        {"name": "tight", "count": 3, "budget": "2 KiB", "batch_size": 16, "micro_batch": 4},
        {"name": "roomy", "count": 2, "budget": "unlimited", "batch_size": 16, "micro_batch": 4},
    ]
    run_loop(small(method=ASI, groups=groups, cohort=5), tmp_path / "alone")
    twins = {"twins": True, "groups": "every-round"}
    run_loop(small(method=ASI, groups=groups, cohort=5, measure=twins), tmp_path / "loop")
    expected = records(tmp_path / "loop")
    assert expected[1] == records(tmp_path / "alone")[1]
    for name, count in (("on-1", 1), ("on-2", 2)):
        compute = {"backend": "flower", "workers": count}
        flower(tmp_path / name, method=ASI, groups=groups, cohort=5, measure=twins, compute=compute)
        assert records(tmp_path / name) == expected


@pytest.mark.slow
def test_devices_at_several_resolutions_get_the_same_bits(tmp_path: Path) -> None:
    each = {"count": 2, "budget": "unlimited", "batch_size": 16, "micro_batch": 1}
    said = {
        "storage": {"frozen": "int8", "calibration_images": 8},
        "train": {"update": "any"},
        "cohort": 6,
        "groups": [
            {**each, "name": "board", "ram": "34 KiB", "resolution": [32, 16]},
            {**each, "name": "roomy", "resolution": [32, 16]},
            {**each, "name": "plain"},
        ],
    }
    run_loop(small(**said), tmp_path / "loop")
    expected = records(tmp_path / "loop")
    for name, count in (("on-1", 1), ("on-2", 2)):
        flower(tmp_path / name, **said, compute={"backend": "flower", "workers": count})
        assert records(tmp_path / name) == expected
    with RunStore.read(tmp_path / "on-2") as store:
        assert [one.resolution for one in store.devices()] == [16, 16, 32, 32, 32, 32]
        assert {row.outcome for row in store.device_rounds()} == {"trained"}


@pytest.mark.slow
def test_devices_lost_on_purpose_are_the_same_ones(tmp_path: Path) -> None:
    faults = {"lost": 0.3, "late": 0.1, "over_budget": 0.1}
    run_loop(small(faults=faults, rounds=3), tmp_path / "loop")
    flower(tmp_path / "flower", faults=faults, rounds=3, compute={"backend": "flower", "workers": 2})
    rows, _ = expected = records(tmp_path / "loop")
    assert records(tmp_path / "flower") == expected
    assert {"killed", "trained"} <= {row["outcome"] for row in rows if "outcome" in row}


@pytest.mark.slow
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


@pytest.mark.slow
def test_no_process_is_left(tmp_path: Path) -> None:
    flower(tmp_path / "run", rounds=1, compute={"backend": "flower"})
    listed = subprocess.run(["ps", "-A", "-o", "args="], capture_output=True, text=True, check=True).stdout
    assert f"fed-asi-{os.getpid()}" not in listed


def test_the_first_cause_is_named_however_deep_it_lies() -> None:
    first = ValueError("no such port\nmore")
    second = RuntimeError("Simulation Runtime crashed.")
    second.__cause__ = first
    third = RuntimeError("An error was encountered. Ending simulation.")
    third.__cause__ = second
    assert str(first_cause(third)) == "Flower's simulation failed: no such port"
    own = RunError("our own words")
    assert first_cause(own) is own


def test_workers_are_those_asked_for_or_what_the_machine_has() -> None:
    assert workers(small(compute={"workers": 3})) == 3
    assert workers(small(compute={"workers": None, "cpus_per_client": 10**6})) == 1


def test_ray_starts_alone_or_joins_the_cluster_that_is_named() -> None:
    alone = backend_config(small(compute={"workers": 3, "cpus_per_client": 2}), "/tmp/ray")
    assert alone["init_args"]["address"] == "local"
    assert alone["init_args"]["num_cpus"] == 6
    assert alone["client_resources"] == {"num_cpus": 2, "num_gpus": 0.0, "max_restarts": -1}
    assert alone["init_args"]["num_gpus"] == 0
    joined = backend_config(small(compute={"ray_address": "10.0.0.1:6379"}), "/tmp/ray")
    assert joined["init_args"]["address"] == "10.0.0.1:6379"
    assert "num_cpus" not in joined["init_args"]


def test_ray_spreads_workers_over_the_gpus_that_are_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fed_asi.fleets.gpu_share.gpus_here", lambda: [None] * 2)
    every = backend_config(small(compute={"workers": 6, "device": "cuda"}), "/tmp/ray")
    assert (every["init_args"]["num_gpus"], every["client_resources"]["num_gpus"]) == (2, 0.3333)
    one = backend_config(small(compute={"device": "cuda:1", "gpus_per_client": 0.25}), "/tmp/ray")
    assert (one["init_args"]["num_gpus"], one["client_resources"]["num_gpus"]) == (1, 0.25)


def test_what_fails_before_flower_starts_ends_the_run_and_is_recorded(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="unknown data set 'nothing'"):
        run_flower(small(data={"source": "nothing"}), tmp_path / "run")
    with RunStore.read(tmp_path / "run") as store:
        assert store.run().status == "failed"
        assert "unknown data set" in str(store.run().cause)
