"""The CSV of single devices' budgets beside a fleet file."""

from __future__ import annotations

from fed_asi.fleets.file import load_config
from fleet_file import GOOD, problems_of


def test_csv_gives_budgets_and_its_bad_lines_have_numbers(write):
    csv = write("partition_id,budget\n# a comment\n0,8 KiB\n\n3,unlimited\n", "budgets.csv")
    path = write(f'budgets_csv = "{csv.name}"\n' + GOOD)
    assert load_config(path, cpus=4).budgets == {0: 8192, 3: None}
    csv.write_text("0,8 KiB\nx,3\n2,lots\n0,5\n1,2,3\n99,4 KiB\n")
    problems = problems_of(path)
    assert [problem.split(":")[0] for problem in problems] == [
        "budgets.csv line 2",
        "budgets.csv line 3",
        "budgets.csv line 4",
        "budgets.csv line 5",
        "budgets.csv",
    ]
    assert "99" in problems[-1]


def test_a_missing_csv_is_one_line(write):
    (problem,) = problems_of(write('budgets_csv = "none.csv"\n' + GOOD))
    assert problem.startswith("budgets_csv:")
    assert problem.endswith("No such file or directory")


def test_a_line_of_the_file_comes_before_the_csvs(write):
    write("0,8 KiB\n1,9 KiB\n", "own.csv")
    path = write('budgets_csv = "own.csv"\n' + GOOD + "[budgets]\n1 = 5000\n")
    assert load_config(path, cpus=4).budgets == {0: 8192, 1: 5000}


def test_a_device_twice_is_named_with_both_lines(write):
    write("0,8 KiB\n1,9 KiB\n0,7 KiB\n", "own.csv")
    assert problems_of(write('budgets_csv = "own.csv"\n' + GOOD)) == [
        "own.csv line 3: device 0 is on line 1 already"
    ]
