"""The CSV with budgets of single devices, beside a fleet file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from fed_asi.fleets.file import load_config
from fleet_file import GOOD, problems_of

NAMED = 'budgets_csv = "own.csv"\n' + GOOD


def said(write: Callable[..., Path], csv: str, rest: str = "") -> list[str]:
    write(csv, "own.csv")
    return problems_of(write(NAMED + rest))


def budgets(write: Callable[..., Path], csv: str) -> dict[int, int | None]:
    write(csv, "own.csv")
    return load_config(write(NAMED), cpus=4).budgets


def test_csv_gives_budgets_and_its_bad_lines_have_numbers(write):
    assert budgets(write, "partition_id,budget\n# a comment\n0,8 KiB\n\n3,unlimited\n") == {0: 8192, 3: None}
    problems = said(write, "0,8 KiB\nx,3\n2,lots\n0,5\n1,2,3\n99,4 KiB\n")
    assert [problem.split(":")[0] for problem in problems] == [
        "own.csv line 2",
        "own.csv line 3",
        "own.csv line 4",
        "own.csv line 5",
        "own.csv",
    ]
    assert "99" in problems[-1]


def test_a_missing_csv_is_one_line(write):
    (problem,) = problems_of(write('budgets_csv = "none.csv"\n' + GOOD))
    assert problem.startswith("budgets_csv:")
    assert problem.endswith("No such file or directory")


@pytest.mark.parametrize("header", ["partition_id,budget", "Partition_ID, bytes", "device,budget"])
def test_a_first_line_of_words_is_a_header(write, header):
    for first in ("", "# made by hand\n\n", "\ufeff"):
        assert budgets(write, f"{first}{header}\n0,8 KiB\n") == {0: 8192}


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("O,64 KiB", "partition_id 'O' is not a whole number from 0 up"),
        ("-1,64 KiB", "partition_id '-1' is not a whole number"),
        ("0;64 KiB", "1 value instead of partition_id,budget"),
        ("x,unlimited", "partition_id 'x' is not"),
        ("device,unlimitd", "partition_id 'device' is not"),
        ("²,64 KiB", "partition_id '²' is not"),
        ("1.0,64 KiB", "partition_id '1.0' is not"),
        ("9" * 30 + ",1", "partition_id '" + "9" * 30 + "' is not"),
        ("0," + "x" * 200_000, "'0,xxx"),
        ("9" * 5000 + ",1", "'9999"),
        ('0,"8 KiB', "'0,\"8 KiB' is not a line of partition_id,budget"),
    ],
)
def test_a_first_line_that_is_no_header_is_a_line(write, line, words):
    """Before, it passed for a header, and device 0 had its group's budget."""
    (problem,) = said(write, f"{line}\n2,8 KiB\n")
    assert problem.startswith(f"own.csv line 1: {words}")
    assert len(problem) < 200


def test_a_device_twice_is_named_with_both_places(write):
    assert said(write, "0,8 KiB\n1,9 KiB\n0,7 KiB\n") == [
        "own.csv line 3: device 0 has its budget in own.csv line 1 already; keep one of them"
    ]
    assert said(write, "0,8 KiB\n1,9 KiB\n", "[budgets]\n1 = 5000\n") == [
        "own.csv line 2: device 1 has its budget in [budgets] 1 already; keep one of them"
    ]
    assert problems_of(write(GOOD + "[budgets]\n1 = 5000\n01 = 6000\n")) == [
        "budgets: device 1 is given twice, as 1 and as 01; keep one of them"
    ]


def test_what_the_command_line_sets_comes_before_the_csvs(write):
    write("0,8 KiB\n1,9 KiB\n", "own.csv")
    assert load_config(write(NAMED), ["budgets.1=5000"], cpus=4).budgets == {1: 5000, 0: 8192}


@pytest.mark.parametrize("key", ['"1_0"', '"+1"', '"1.0"', "x", '"²"'])
def test_a_key_that_only_python_reads_as_a_number_is_none(write, key):
    (problem,) = problems_of(write(GOOD + f"[budgets]\n{key} = 5000\n"))
    assert "must be a whole number from 0 up" in problem
