"""The three answers of a run's page, from made-up records."""

from __future__ import annotations

from dataclasses import replace

import pytest

from fed_asi.fleets.config import GroupConfig
from fed_asi.results.figure_tables import mean_of
from fed_asi.results.first_screen import Answer, bought, did_it_work, how_gained, was_left_out
from fed_asi.results.now import Now
from fed_asi.results.store import RunStore
from fed_asi.results.summary import Summary, summarise
from made_clock import with_clock
from made_run import make
from made_twins import with_groups, with_twins


def summary_of(folder) -> Summary:
    with RunStore.read(folder) as store:
        return summarise(store)


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Summary:
    return summary_of(make(tmp_path_factory.mktemp("runs") / "made"))


def standing(made: Summary, status: str, standing: str, **changes) -> Summary:
    return replace(made, standing=standing, run=replace(made.run, status=status, **changes))


ACCURACY = ("accuracy 12.0 % → 72.5 % on the server's test images", "its worst class 36.3 %")


def test_a_whole_run_worked(made):
    assert did_it_work(made) == Answer("good", "Yes: 4 of 4 rounds, every device accounted for", ACCURACY)


def test_a_run_that_goes_on_says_what_it_is_at(made):
    going = standing(made, "running", "running")
    expected = ("round 5: 1 of 3", *ACCURACY)
    assert did_it_work(going, Now("round 5", 1, 3)) == Answer(
        "going", "It is running: 4 of 4 rounds are done", expected
    )
    assert did_it_work(replace(going, rounds=())).says == "It is being prepared"
    begun = did_it_work(replace(going, rounds=made.rounds[:1]))
    assert begun.lines == ("accuracy 12.0 % before any training, on the server's test images",)


def test_a_run_that_did_not_end_says_why_and_how_to_go_on(made):
    failed = did_it_work(standing(made, "failed", "failed: disk full", cause="disk full"))
    assert (failed.mark, failed.says, failed.lines[0]) == (
        "bad",
        "No: it failed after 4 of 4 rounds",
        "disk full",
    )
    stopped = did_it_work(standing(made, "interrupted", "interrupted; go on with: x"))
    assert (stopped.mark, stopped.says) == ("part", "Not yet: it stopped after 4 of 4 rounds")
    assert stopped.lines[0] == "interrupted; go on with: x"


def test_a_run_that_ended_without_all_it_asked_for_worked_in_part(made):
    lost = ("1 of 4 rounds did not happen",)
    assert did_it_work(replace(made, missing=lost)) == Answer(
        "part", "In part: 4 of 4 rounds", (*ACCURACY, *lost)
    )


def test_a_run_in_which_nobody_trained_did_not_work(tmp_path):
    nobody = summary_of(make(tmp_path / "x", groups=(GroupConfig(name="a", count=2, budget=2048),)))
    assert did_it_work(nobody).says == "No: no device ever trained"
    assert was_left_out(nobody).says == "8 of the 8 times a device was asked"
    assert bought(nobody)[0].budget == ("2.0 KiB", "no step ran")
    assert bought(nobody)[0].gained == "-"


def test_accuracy_that_fell_is_said_first(tmp_path):
    fell = summary_of(make(tmp_path / "x", accuracy=lambda number: 0.1 / number))
    assert did_it_work(fell).says == "It ran to its end (4 of 4 rounds), but accuracy fell"


def test_a_clock_is_in_the_answer(tmp_path):
    assert "4 hours on the run's clock" in did_it_work(summary_of(with_clock(make(tmp_path / "x")))).lines


def test_each_group_has_a_line(made):
    tight, medium, roomy = bought(made)
    assert tight.group == ("tight", "1 device, trained 0 of 4")
    assert medium.group == ("medium", "4 devices, trained 16 of 16")
    assert medium.budget == ("64.0 KiB", "a step saves 62.9 KiB")
    assert roomy.budget[0] == "unlimited"
    assert how_gained(made) == "last round, own images"
    assert medium.gained.endswith(" %")


def test_what_is_gained_is_against_twins_where_there_are_any_and_else_of_the_shared_model(tmp_path):
    twins = summary_of(with_twins(make(tmp_path / "twins")))
    assert bought(twins)[1].gained == mean_of(twins.groups[1].twin_difference)
    assert how_gained(twins) == "points, against its twin"
    judged = summary_of(with_groups(make(tmp_path / "judged")))
    assert bought(judged)[0].gained == "12.5 → 75.0 %"
    assert how_gained(judged) == "shared model, its images"


def test_a_device_of_ram_has_its_ram_for_a_budget(tmp_path):
    group = GroupConfig(name="board", count=2, budget=None, ram=320 * 1024)
    (board,) = bought(summary_of(make(tmp_path / "x", groups=(group,), rounds=1)))
    assert board.budget == ("320.0 KiB RAM", "no step ran")


def test_each_end_is_left_out_once_with_a_cause(made):
    found = was_left_out(made)
    assert found.says == "4 of the 32 times a device was asked"
    assert found.lines == ("4 × excluded, as in: budget 2.0 KiB is below the smallest plan, 4.0 KiB",)


def test_where_nobody_was_left_out_it_says_so(tmp_path):
    all_in = summary_of(make(tmp_path / "x", groups=(GroupConfig(name="a", count=2, budget=None),)))
    assert was_left_out(all_in) == Answer(
        "good", "Nothing: devices were asked 8 times and trained every time"
    )
