"""What a run's records come to, and how they are shown; hand-counted from made-up runs."""

from __future__ import annotations

import io
import re

import pytest
from rich.console import Console

from fed_asi.errors import RunError
from fed_asi.fleets.config import GroupConfig
from fed_asi.fleets.resources import BudgetChange
from fed_asi.results import report, table
from fed_asi.results.compare import compare
from fed_asi.results.schema import DeviceRecord, DeviceRoundRecord, RoundRecord
from fed_asi.results.store import RunStore
from fed_asi.results.summary import summarise
from made_run import GROUPS, make


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return make(tmp_path_factory.mktemp("runs") / "made")


def text_of(folder, width: int = 140) -> str:
    console = Console(width=width, file=io.StringIO())
    report.show(folder, console)
    return console.file.getvalue()


def test_summary_by_hand(run):
    with RunStore.read(run) as store:
        summary = summarise(store)
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


def test_a_schedule_shows_every_budget_in_force(tmp_path):
    group = GroupConfig(name="a", count=1, budget=9000, schedule=(BudgetChange(round=3, budget=5000),))
    folder = make(tmp_path / "x", groups=(group,))
    with RunStore.read(folder) as store:
        summary = summarise(store)
    assert summary.groups[0].budgets == (5000, 9000)
    assert [(d.budget_bytes, d.asked) for d in summary.devices] == [(5000, 2), (9000, 2)]
    assert "4.9 KiB to 8.8 KiB" in text_of(folder)


def test_table_says_what_was_bought_and_who_was_left_out(run):
    text = text_of(run)
    assert "64.0 KiB" in text
    assert "unlimited" in text
    assert "0 of 4, 4 excluded" in text
    assert "accuracy 12.0 % → 72.5 %" in text
    assert "4 × excluded, as in: budget 2.0 KiB is below the smallest plan, 4.0 KiB" in text
    assert "note: the server trained the network on 300 public images" in text
    assert "papers' count" in text
    assert "papers' count" not in text_of(run, width=80)


def test_page_holds_everything_itself(run):
    page = report.write([run])
    html = page.read_text()
    assert page == run / "report.html"
    assert html.count("<img") == 3
    assert 'src="data:image/png;base64,' in html
    assert not re.search(r"(src|href)=\"(?!data:)", html)
    assert "<script" not in html
    for expected in ("Resolved configuration", "&quot;rounds&quot;: 4", "torch 2.13.0", "64.0 KiB"):
        assert expected in html
    assert len(list(run.glob("*.png"))) == 3


def test_several_runs_on_one_page(run, tmp_path):
    other = make(tmp_path / "other", seed=1)
    html = report.write([run, other], tmp_path / "new" / "both.html").read_text()
    assert html.count("<img") == 2 + 3 + 3
    assert "made and other" in html


def test_names_are_escaped(tmp_path):
    folder = make(tmp_path / "x", groups=(GroupConfig(name="<b>&", count=1, budget=9000),), rounds=1)
    html = report.write([folder]).read_text()
    assert "<b>&" not in html.replace("<b>", "", html.count('class="number"'))
    assert "&lt;b&gt;&amp;" in html


def test_a_run_that_has_not_begun_or_not_ended(tmp_path):
    folder = make(tmp_path / "x", rounds=3, finish=False, begun=False)
    with RunStore.open(folder) as store:
        assert "the run is running" in text_of(folder)
        assert summarise(store).groups[1].asked == 0
    assert "no evaluation yet" in text_of(folder)
    assert "3 of 3 rounds did not happen" in text_of(folder)
    assert "the run is stopped half-way; go on with: fed-asi run --resume" in text_of(folder)
    assert report.write([folder]).exists()


def test_a_page_that_cannot_be_written(run, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(RunError, match="cannot write"):
        report.write([run], tmp_path / "file" / "page.html")


def test_thousands_of_devices_are_counted_right(tmp_path):
    groups = (GroupConfig(name="many", count=3000, budget=9000),)
    folder = make(tmp_path / "x", groups=groups, rounds=2)
    with RunStore.read(folder) as store:
        summary = summarise(store)
    assert summary.groups[0].trained == 6000
    assert len(summary.devices) == 3000


def test_equal_runs_compare_equal_whatever_their_times(run, tmp_path):
    again = make(tmp_path / "made")
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
    assert "weights: not recorded by both, so nothing is known" in lines


def test_every_column_has_a_cell(run):
    with RunStore.read(run) as store:
        assert all(len(table.cells(g)) == len(table.COLUMNS) for g in summarise(store).groups)
    assert len(GROUPS) == 3
