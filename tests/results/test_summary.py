"""The summary of a run's records, counted by hand from made-up runs."""

from __future__ import annotations

from dataclasses import replace

import pytest

from fed_asi.fleets.config import GroupConfig
from fed_asi.fleets.resources import BudgetChange
from fed_asi.results.schema import DeviceRoundRecord, RoundRecord
from fed_asi.results.store import RunStore
from fed_asi.results.summary import Summary, summarise
from made_run import make
from made_twins import with_groups, with_twins


def summary_of(folder) -> Summary:
    with RunStore.read(folder) as store:
        return summarise(store)


def test_summary_by_hand(tmp_path):
    summary = summary_of(make(tmp_path / "made"))
    tight, medium, roomy = summary.groups
    assert [g.name for g in summary.groups] == ["tight", "medium", "roomy"]
    assert (tight.asked, tight.trained, tight.left_out) == (4, 0, {"excluded": 4})
    assert (medium.devices, medium.asked, medium.trained) == (4, 16, 16)
    assert medium.planned_bytes == 65536 - 1000
    assert medium.measured_bytes == 65536 - 1000 - 100  # of device 1, the group's first
    assert (medium.budgets, roomy.budgets) == ((65536,), (None,))
    assert (roomy.micro_batches, roomy.trained_layers) == ((8,), (4,))
    assert summary.final is not None
    assert summary.final.round == 4
    assert summary.first is not None
    assert summary.first.round == 0
    assert summary.causes == (("excluded", "budget 2.0 KiB is below the smallest plan, 4.0 KiB", 4),)
    assert summary.missing == ()


def test_accuracies_are_of_each_devices_last_trained_round(tmp_path):
    folder = make(
        tmp_path / "x", groups=(GroupConfig(name="a", count=2, budget=9000),), rounds=3, finish=False
    )
    with RunStore.open(folder) as store:
        store.add_round(
            RoundRecord(3, 2, 1, 0.1, 0.8),
            [
                DeviceRoundRecord(
                    3, 0, "trained", budget_bytes=9000, accuracy_before=0.5, accuracy_after=0.75
                ),
                DeviceRoundRecord(3, 1, "out-of-memory", budget_bytes=9000, measured_bytes=9900),
            ],
        )
        last = next(d for d in store.device_rounds(2) if d.partition_id == 1)
        (group,) = summarise(store).groups
    assert group.accuracy_after == pytest.approx((0.75 + last.accuracy_after) / 2)
    assert group.accuracy_before == pytest.approx((0.5 + last.accuracy_before) / 2)
    assert group.measured_bytes == 9900
    assert group.left_out == {"out-of-memory": 1}


def test_what_a_budget_costs_is_the_mean_over_rounds_then_over_devices(tmp_path):
    folder = with_twins(make(tmp_path / "made"), lambda row: 0.01 * (row.partition_id + row.round))
    summary = summary_of(folder)
    tight, medium, roomy = summary.groups
    assert [d.paired for d in summary.devices] == [4] * 8
    assert [d.twin_difference for d in summary.devices] == [
        pytest.approx(-0.01 * (i + 2.5))
        for i in range(8)  # rounds 1 to 4
    ]
    assert medium.twin_difference.mean == pytest.approx(-0.05)
    assert (medium.twin_difference.count, tight.twin_difference.count) == (4, 1)
    assert roomy.twin_cosine.mean == pytest.approx(1 - 0.03 * 8.5)
    assert tight.twin_cosine is None  # it never trained
    assert tight.twin_difference.mean == pytest.approx(-0.025)
    assert medium.gain.mean == pytest.approx(0.05)
    assert summary.twins == "unlimited"


def test_only_ends_that_a_budget_brings_about_are_held_against_it(tmp_path):
    folder = with_twins(make(tmp_path / "x", groups=(GroupConfig(name="a", count=3, budget=9000),), rounds=1))
    with RunStore.open(folder) as store:
        rows = list(store.device_rounds(1))
        ends = ("rejected", "out-of-memory", "killed")
        changed = [replace(row, outcome=end, cause="why") for row, end in zip(rows, ends, strict=True)]
        store.add_round(store.rounds()[-1], changed)
        found = summarise(store)
    assert [d.paired for d in found.devices] == [0, 1, 0]
    late = rows[1]
    assert found.devices[1].twin_difference == pytest.approx(late.accuracy_before - late.twin_accuracy_after)


def test_a_device_of_two_budgets_counts_once_in_its_group(tmp_path):
    change = (BudgetChange(round=3, budget=5000),)
    groups = (GroupConfig(name="a", count=3, budget=9000, schedule=change),)
    (group,) = summary_of(with_twins(make(tmp_path / "x", groups=groups))).groups
    assert group.twin_difference.count == 3
    assert group.twin_difference.mean == pytest.approx(-0.02)


def test_the_shared_model_of_a_group_is_there_by_round(tmp_path):
    (group, *_) = summary_of(with_groups(make(tmp_path / "x"))).groups
    assert [(one.round, one.accuracy) for one in group.shared] == [(0, 0.125), (4, 0.75)]


def test_a_schedule_shows_every_budget_in_force(tmp_path):
    group = GroupConfig(name="a", count=1, budget=9000, schedule=(BudgetChange(round=3, budget=5000),))
    folder = make(tmp_path / "x", groups=(group,))
    summary = summary_of(folder)
    assert summary.groups[0].budgets == (5000, 9000)
    assert [(d.budget_bytes, d.asked) for d in summary.devices] == [(5000, 2), (9000, 2)]


def test_thousands_of_devices_are_counted_right(tmp_path):
    groups = (GroupConfig(name="many", count=3000, budget=9000),)
    folder = make(tmp_path / "x", groups=groups, rounds=2)
    summary = summary_of(folder)
    assert summary.groups[0].trained == 6000
    assert len(summary.devices) == 3000


def test_how_a_run_stands_is_said_with_what_to_do(tmp_path):
    folder = make(tmp_path / "x", rounds=3, finish=False, begun=False)
    with RunStore.open(folder) as store:
        assert summarise(store).standing == "running"
        assert summarise(store).groups[1].asked == 0
    assert summary_of(folder).standing == f"stopped half-way; go on with: fed-asi run --resume {folder}"
    for status, cause, expected in (
        ("interrupted", None, f"interrupted; go on with: fed-asi run --resume {folder}"),
        ("failed", "the disk is full", "failed: the disk is full"),
        ("finished", None, "finished"),
    ):
        with RunStore.open(folder) as store:
            store.set_status(status, cause=cause)
        assert summary_of(folder).standing == expected


def test_before_any_evaluation_there_is_no_first_and_no_last(tmp_path):
    summary = summary_of(make(tmp_path / "x", begun=False, finish=False))
    assert (summary.first, summary.final) == (None, None)
    assert summary.missing == ("4 of 4 rounds did not happen",)


def test_no_outcome_is_hidden_by_the_many_causes_of_another(tmp_path):
    """By the clock every cause says other seconds."""
    folder = make(
        tmp_path / "x", groups=(GroupConfig(name="a", count=31, budget=9000),), rounds=1, finish=False
    )
    late = [DeviceRoundRecord(1, one, "late", f"it needs {one} s", budget_bytes=9000) for one in range(30)]
    with RunStore.open(folder) as store:
        store.add_round(
            RoundRecord(2, 31, 0, 0.1, 0.8),
            [*(replace(one, round=2) for one in late), DeviceRoundRecord(2, 30, "rejected", "why")],
        )
    causes = summary_of(folder).causes
    assert [outcome for outcome, _, _ in causes].count("late") == 5
    assert ("rejected", "why", 1) in causes
