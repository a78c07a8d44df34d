"""A fleet file on disk: all of its errors at once, and files that are not fleet files."""

from __future__ import annotations

import pytest

from fed_asi.errors import ConfigError
from fed_asi.fleets.file import load_config
from fleet_file import GOOD, problems_of


def test_five_mistakes_are_five_lines(write):
    text = (
        GOOD.replace("cohort = 3", "cohort = 30\ncolour = 3")
        .replace('"64 KiB"', '"64 KB"')
        .replace("micro_batch = 4", "micro_batch = 40")
        + '[train]\nlr_shedule = "cosine"\n[compute]\ncpus_per_client = 64\n'
    )
    problems = problems_of(write(text))
    assert len(problems) == 6
    for expected in (
        "colour: unknown key",
        "train.lr_shedule: unknown key; did you mean lr_schedule?",
        "groups[0].budget: size '64 KB': KB means 1000 to some and 1024 to others; write KiB",
        "cohort: 30 devices a round, but the groups have only 5",
        "groups[0].micro_batch: 40 is more than its batch_size 16",
        "compute.cpus_per_client: 64, but this machine has 4 CPUs",
    ):
        assert any(problem.startswith(expected) for problem in problems), (expected, problems)


def test_files_that_are_none(write, tmp_path):
    path = write(GOOD)
    assert problems_of(tmp_path / "fleat.toml") == [
        f"no file {tmp_path}/fleat.toml; did you mean fleet.toml?"
    ]
    assert "cannot be read" in problems_of(tmp_path)[0]
    path.write_bytes(b"\xff\xfe\x00")
    assert "not UTF-8" in problems_of(path)[0]
    path.write_text("name = \nrounds = 3")
    assert "is not TOML" in problems_of(path)[0]
    assert "line 1" in problems_of(path)[0]


def test_mistakes_of_file_csv_and_command_line_come_together(write):
    write("0,8 KiB\nx,3\n", "own.csv")
    path = write('budgets_csv = "own.csv"\n' + GOOD.replace("rounds = 4", "rounds = 0"))
    problems = problems_of(path, "train.lr=0", "nothing")
    assert [problem.partition(":")[0] for problem in problems] == [
        "--set 'nothing'",
        "own.csv line 2",
        "rounds",
        "train.lr",
    ]


def test_a_byte_order_mark_is_no_mistake(write):
    path = write(GOOD)
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert load_config(path, cpus=4).name == "small"


@pytest.mark.parametrize("text", ["seed = " + "9" * 5000, "x = " + "[" * 5000, "a = 1\na = 2", "\0"])
def test_whatever_tomllib_says_is_one_line(write, text):
    (problem,) = problems_of(write(text))
    assert "fleet.toml is not TOML: " in problem
    assert "\n" not in problem


def test_a_value_too_long_to_read_is_shortened(write):
    (problem,) = problems_of(write(GOOD), f'seed="{"x" * 9000}"')
    assert problem.endswith("... (9,002 characters)")
    assert len(problem) < 200
    (problem,) = problems_of(write(GOOD), f"seed={'9' * 5000}")
    assert len(problem) < 200


@pytest.mark.parametrize("key", ["a[b", "int", "none", "", "["])
def test_an_unknown_key_may_be_any_text(write, key):
    with pytest.raises(ConfigError) as raised:
        load_config(write(f'"{key}" = 1\n'))
    assert any("unknown key" in problem for problem in raised.value.problems)
