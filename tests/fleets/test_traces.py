"""Traces of presence as published, and impossible ones."""

from __future__ import annotations

import json
import math
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fed_asi.errors import ConfigError
from fed_asi.fleets.traces import read_traces


def written(folder: Path, name: str, content: str | bytes) -> str:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return str(path)


def there(path: str, row: int, *times: float) -> list[bool]:
    return [bool(read_traces(path).present(np.array([row]), at)[0]) for at in times]


def test_intervals_of_ones_own_begin_again(tmp_path: Path) -> None:
    path = written(tmp_path, "a.csv", "device,start,end\nx,0,10\nx,10,20\nx,50,60\ny,70,100\n")
    assert there(path, 0, 0, 15, 20, 55, 99, 100, 215) == [True, True, False, True, False, True, True]
    traces = read_traces(path)
    assert (traces.leaves(0, 5), traces.leaves(0, 105)) == (20, 120)
    rows, at = np.array([0, 1, 0, 0, 1]), np.array([30.0, 205, 70, 55, 0])
    assert traces.comes(rows, at).tolist() == [50, 270, 100, 55, 70]


def test_fedscales_availability(tmp_path: Path) -> None:
    client = {
        "duration": 211625,
        "inactive": [65881, 133574],
        "finish_time": 518400,
        "active": [12788, 100044],
        "model": "CPH1801",
    }
    path = written(tmp_path, "client_behave_trace", pickle.dumps({2: client}))
    assert there(path, 0, 12787, 12788, 65880, 65881, 518400 + 12788) == [False, True, True, False, True]


FLASH = "\n".join([
    "2020-01-02 10:00:00\tscreen_lock",
    "2020-01-02 10:00:00\twifi",
    "2020-01-02 11:00:00\tbattery_charged_on",
    "2020-01-02 11:30:00\t87%",
    "2020-01-02 12:00:00\tscreen_unlock",
    "2020-01-02 12:30:00\tscreen_lock",
    "2020-01-02 13:00:00\t4G",
    "2020-01-03 10:00:00\tscreen_on",
])  # fmt: skip


def test_flashs_states(tmp_path: Path) -> None:
    entry = {"guid": "x", "model": "y", "messages": FLASH}
    path = written(tmp_path, "state_traces.json", json.dumps({"uid": entry}))
    hours = (10.5, 11, 11.9, 12.1, 12.6, 13.1, 35.5)
    assert there(path, 0, *(3600 * hour for hour in hours)) == [False, True, True, False, True, False, True]
    assert read_traces(path).comes(np.array([0]), np.array([0.0])).tolist() == [11 * 3600]


def test_one_that_is_always_there_never_leaves(tmp_path: Path) -> None:
    traces = read_traces(written(tmp_path, "a.csv", "x,0,100\ny,20,30\n"))
    assert traces.leaves(0, 50) == math.inf


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        (
            "a.csv",
            "x,0,10\nx,5,20\n",
            "5 to 20 s begins before 10: intervals must be sorted and must not overlap",
        ),
        ("a.csv", "x,50,60\nx,5,20\n", "begins before 60"),
        ("a.csv", "x,10,10\n", "10 to 10 s is not an interval"),
        ("a.csv", "x,-5,10\n", "begins before 0"),
        ("a.csv", "x,nan,10\n", "is not an interval"),
        ("a.csv", "x,one,10\n", "line 1: 'x,one,10' is not device,start,end"),
        ("a.csv", "", "no device is ever present"),
        ("a.csv", b"\xff", "is no CSV"),
        (
            "a",
            pickle.dumps({1: {"active": [], "inactive": [], "finish_time": 10}}),
            "no device is ever present",
        ),
        (
            "a",
            pickle.dumps({1: {"active": [1], "inactive": [], "finish_time": 10}}),
            "1 times active and 0 inactive",
        ),
        (
            "a",
            pickle.dumps({1: {"active": [1], "inactive": [20], "finish_time": 10}}),
            "after its cycle of 10 s",
        ),
        ("a", pickle.dumps({1: {"active": [1], "inactive": [2], "finish_time": 0}}), "a cycle of 0 s"),
        ("a", pickle.dumps({1: 5}), "needs the lists active and inactive"),
        ("a", b"none", "neither a CSV"),
        ("a.json", '{"x": {"messages": "yesterday"}}', "needs messages"),
        ("a.json", "{", "is no JSON"),
    ],
)
def test_what_is_wrong_is_said_by_its_place(tmp_path: Path, name: str, content: Any, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read_traces(written(tmp_path, name, content))
    assert any(said in problem for problem in caught.value.problems)


def test_a_missing_trace_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        read_traces(str(tmp_path / "none"))


def test_of_many_problems_the_first_are_said(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        read_traces(written(tmp_path, "a.csv", "".join(f"{i},5,5\n" for i in range(9))))
    assert len(caught.value.problems) == 6
