"""Two runs compared: equal to the bit, or the first record that differs."""

from __future__ import annotations

from dataclasses import replace

import pytest

from fed_asi.errors import RunError
from fed_asi.fleets.config import GroupConfig, RunConfig
from fed_asi.results.compare import compare
from fed_asi.results.schema import DeviceRecord, DeviceRoundRecord
from fed_asi.results.store import RunStore
from made_run import make


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return make(tmp_path_factory.mktemp("runs") / "made")


def test_equal_runs_compare_equal_whatever_their_times(run, tmp_path):
    again = make(tmp_path / "made", finish=False)
    with RunStore.open(again) as store:
        for record in store.rounds()[1:]:
            store.add_round(replace(record, host_seconds=99.0), list(store.device_rounds(record.round)))
        store.set_status("finished", weights_sha256="weights of 0")
    comparison = compare(run, again)
    assert comparison.equal
    assert comparison.lines[0].startswith("weights: equal to the bit")


def test_the_first_difference_is_named(run, tmp_path):
    again = make(tmp_path / "made", finish=False)
    with RunStore.open(again) as store:
        store.set_status("finished", weights_sha256="others")
        told = list(store.device_rounds(2))
        told[3] = DeviceRoundRecord(2, 3, "killed")
        store.add_round(store.rounds()[2], told)
    comparison = compare(run, again)
    assert not comparison.equal
    assert comparison.first_difference == "round 2, device 3, outcome: 'trained' and 'killed'"
    with RunStore.open(again) as store:
        store.add_devices([DeviceRecord(99, "x", 1, 2, None, 3)])
    assert compare(run, again).first_difference == "device 99 is only in the second run"


def test_other_settings_and_unknown_weights_are_said(run, tmp_path):
    lines = compare(run, make(tmp_path / "other", seed=3, finish=False)).lines
    assert "setting seed: 0 and 3" in lines
    assert "weights: not recorded in both runs, so they cannot be compared" in lines


def test_results_of_both_are_shown_side_by_side(run, tmp_path):
    lines = compare(run, make(tmp_path / "made", rounds=2)).lines
    assert "rounds: 4 and 2" in lines
    assert "accuracy: 72.50 % and 55.00 % (-17.50)" in lines
    assert any(line.startswith("largest measured step: 390.1 KiB and 390.1 KiB") for line in lines)
    assert "seconds of rounds: 6.0 and 3.0" in lines


def test_a_round_that_only_one_has_is_named(run, tmp_path):
    assert (
        compare(run, make(tmp_path / "made", rounds=3)).first_difference == "round 4 is only in the first run"
    )


def test_other_versions_are_named(tmp_path):
    config = RunConfig(name="x", cohort=1, rounds=1, groups=(GroupConfig(name="a", count=1, budget=9000),))
    for name, versions in (("a", {"torch": "2.13.0"}), ("b", {"torch": "2.13.1", "ray": "2.55.1"})):
        RunStore.create(tmp_path / name, config, versions).close()
    lines = compare(tmp_path / "a", tmp_path / "b").lines
    assert "version of torch: 2.13.0 and 2.13.1" in lines
    assert "version of ray: None and 2.55.1" in lines


def test_what_is_no_run_is_refused(run, tmp_path):
    with pytest.raises(RunError, match="no run in"):
        compare(run, tmp_path)
