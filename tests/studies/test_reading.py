"""A run as a study reads it: current records, an old run's, and a later one's with columns that do not exist yet."""

from __future__ import annotations

import shutil

import pytest

from fed_asi.errors import RunError
from fed_asi.studies.measures import MEASURES
from fed_asi.studies.reading import read_run
from made_run import make
from made_study import add_column, change


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make(tmp_path_factory.mktemp("runs") / "made", bytes_up=1000)


@pytest.fixture
def later(folder, tmp_path):
    return shutil.copytree(folder, tmp_path / "later")


def test_what_a_run_comes_to(folder):
    run = read_run(folder)
    assert run.values == {
        "final_accuracy": pytest.approx(0.9 - 0.7 / 4),
        "worst_class_accuracy": pytest.approx((0.9 - 0.7 / 4) / 2),
        "best_accuracy": pytest.approx(0.9 - 0.7 / 4),
        "took_part": 28 / 32,
        "measured_bytes": 400_000 - 500,
        "planned_bytes": 400_000,
        "published_bytes": 133_333,
        "bytes_up": 4000,
        "bytes_down": 8000,
        "rounds": 4,
        "host_seconds": 6.0,
    }
    assert run.curves["accuracy"] == pytest.approx({0: 0.12, 1: 0.2, 2: 0.55, 3: 0.9 - 0.7 / 3, 4: 0.725})
    assert run.spent["bytes_up"] == {1: 1000, 2: 2000, 3: 3000, 4: 4000}
    assert {name: (one.asked, one.trained) for name, one in run.groups.items()} == {
        "tight": (4, 0),
        "medium": (16, 16),
        "roomy": (12, 12),
    }
    assert run.outcomes == {"trained": 28, "excluded": 4}
    assert run.missing == ()
    assert run.versions["torch"] == "2.13.0"


def test_the_cost_of_a_target_is_what_was_spent_by_the_first_evaluation_that_reached_it(folder):
    run = read_run(folder)
    assert run.spent_to(0.55, MEASURES["rounds"]) == 2
    assert run.spent_to(0.551, MEASURES["bytes_up"]) == 3000
    assert run.spent_to(0.1, MEASURES["bytes_up"]) == 0  # the model was there before any round
    assert run.spent_to(0.8, MEASURES["rounds"]) is None
    assert run.spent_to(0.1, MEASURES["energy_joules"]) is None


def test_columns_that_come_later_are_read_when_they_come(later):
    before = read_run(later)
    add_column(later, "device_rounds", "ram_bytes", "1000 * (partition_id + 1)")
    add_column(later, "rounds", "sim_end_seconds", "CASE WHEN round > 0 THEN 10 * round * round END")
    add_column(later, "device_rounds", "energy_joules", "CASE WHEN outcome = 'trained' THEN 2.0 END")
    run = read_run(later)
    new = {name: value for name, value in run.values.items() if name not in before.values}
    assert new == {"ram_bytes": 8000, "sim_seconds": 160, "energy_joules": 2.0 * 28}
    assert run.spent["sim_seconds"] == {1: 10, 2: 40, 3: 90, 4: 160}


def test_a_column_with_nothing_in_it_or_with_holes_is_no_measure(later):
    add_column(later, "device_rounds", "ram_bytes", "NULL")
    add_column(later, "device_rounds", "energy_joules", "NULL")
    add_column(later, "rounds", "sim_end_seconds", "CASE WHEN round NOT IN (0, 2) THEN 1.0 END")
    assert not read_run(later).values.keys() & {"ram_bytes", "energy_joules", "sim_seconds"}


def test_a_round_in_which_nobody_trained_costs_nothing(later):
    add_column(later, "device_rounds", "energy_joules", "CASE WHEN round != 2 THEN 1.0 END")
    assert "energy_joules" not in read_run(later).values
    change(later, "UPDATE device_rounds SET outcome = 'excluded' WHERE round = 2")
    assert read_run(later).spent["energy_joules"] == {1: 8, 2: 8, 3: 16, 4: 24}


def test_runs_of_a_seed_share_shards_and_cohorts_and_others_do_not(folder, tmp_path):
    one, again = read_run(folder), read_run(make(tmp_path / "again", rounds=2))
    assert one.shards == again.shards
    assert again.cohorts.items() <= one.cohorts.items()
    change(tmp_path / "again", "UPDATE devices SET num_examples = num_examples + 1 WHERE partition_id = 3")
    change(tmp_path / "again", "DELETE FROM device_rounds WHERE round = 2 AND partition_id = 1")
    other = read_run(tmp_path / "again")
    assert other.shards != one.shards
    assert (other.cohorts[1], other.cohorts[2] == one.cohorts[2]) == (one.cohorts[1], False)


def test_what_a_device_holds_beside_its_step_is_the_largest_sum(tmp_path):
    folder = make(tmp_path / "held")
    change(
        folder,
        "UPDATE device_rounds SET weight_bytes = 100 * partition_id, accumulator_bytes = 5, strategy_bytes = NULL",
    )
    change(
        folder, "UPDATE device_rounds SET strategy_bytes = 1000, optimizer_bytes = 7 WHERE partition_id = 2"
    )
    assert read_run(folder).values["static_bytes"] == 200 + 5 + 1000 + 7


@pytest.mark.parametrize("finish", [None, False])
def test_what_is_no_finished_run_is_an_error(tmp_path, finish):
    if finish is None:
        with pytest.raises(RunError, match="no run in"):
            read_run(tmp_path)
    else:
        make(tmp_path / "half", finish=False, rounds=1)
        with pytest.raises(RunError, match="is not finished: running"):
            read_run(tmp_path / "half")
