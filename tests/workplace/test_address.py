"""A run's workplace: where it is, and which settings lead to another one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fed_asi.workplace.address import address_of, run_fingerprint, workplace_folder
from runs import small


def test_it_is_in_the_runs_own_folder_or_under_a_shared_one(monkeypatch, tmp_path):
    monkeypatch.delenv("FED_ASI_WORKPLACE_DIR", raising=False)
    assert workplace_folder(Path("runs/demo")) == Path("runs/demo/workplace")
    assert address_of(tmp_path, small()).folder == str(tmp_path.resolve())
    monkeypatch.setenv("FED_ASI_WORKPLACE_DIR", "/workplace")
    assert workplace_folder(Path("runs/demo")) == Path("/workplace/demo")
    assert (
        address_of(tmp_path / "demo", small()).folder == "demo"
    )  # each side has its own path to what is shared


@pytest.mark.parametrize(
    "changes",
    [
        {"name": "another"},
        {"compute": {"workers": 7}},
        {"compute": {"backend": "flower"}},
        {"compute": {"ray_address": "10.0.0.1:6379"}},
        {"compute": {"gpus_per_client": 0.5}},
        {"compute": {"deadline_seconds": 9.0}},
    ],
    ids=str,
)
def test_where_and_how_fast_it_runs_makes_no_other_run(changes: dict[str, Any]):
    assert run_fingerprint(small(**changes)) == run_fingerprint(small())


@pytest.mark.parametrize(
    "changes",
    [
        {"seed": 2},
        {"method": {"layers": 3}},
        {"data": {"limit": 200}},
        {"compute": {"threads": 2}},
        {"compute": {"device": "cuda"}},
    ],
    ids=str,
)
def test_whatever_may_change_the_weights_makes_another_run(changes: dict[str, Any]):
    assert run_fingerprint(small(**changes)) != run_fingerprint(small())


def test_a_run_goes_on_on_another_gpu_of_the_machine():
    first, other = (small(compute={"device": name}) for name in ("cuda", "cuda:1"))
    assert run_fingerprint(first) == run_fingerprint(other)


def test_runs_from_before_there_were_faults_are_still_the_same_runs():
    assert run_fingerprint(small()) == "72b2ab508ba9d6e7"  # as computed before the section was added
    assert run_fingerprint(small(faults={"lost": 0.1})) != run_fingerprint(small())


def test_runs_from_before_storage_said_more_than_what_is_frozen_are_still_the_same_runs():
    eight = {"frozen": "int8", "calibration_images": 16}
    assert run_fingerprint(small(storage=eight)) == "3c3d1c71fa05f5cf"  # as computed before there was the key
    later = (
        {},
        {"trunk_by": "channel"},
        {"trained": "float16"},
        {"trained": "float16", "trunk_by": "channel"},
    )
    every = {run_fingerprint(small(storage={**one, **more})) for one in (eight, {}) for more in later}
    assert len(every) == 8


def test_what_computes_features_is_told_where_it_is_not_torch():
    """Runs from before there was a choice are pinned above."""
    asked = small(compute={"trunk_engine": "onnxruntime"})
    assert run_fingerprint(small(compute={"trunk_engine": "torch"})) == run_fingerprint(small())
    assert run_fingerprint(asked) != run_fingerprint(small())


def test_a_clock_and_devices_make_another_run_where_a_file_names_them():
    """Runs from before there were any are pinned above."""
    told = [{**group, "device": "rp2040"} for group in GROUPS]
    present = [{**group, "presence": "daily"} for group in GROUPS]
    runs = [
        small(groups=GROUPS),
        small(groups=told),
        small(groups=present),
        small(clock={"deadline_seconds": 9.0}),
    ]
    assert len({run_fingerprint(one) for one in runs}) == len(runs)


GROUPS = [{"name": name, "count": 3, "budget": "unlimited", "batch_size": 16} for name in ("a", "b")]
