"""Published tables of devices, and malformed ones."""

from __future__ import annotations

import json
import os
import pickle
from pathlib import Path
from typing import Any

import pytest

from fed_asi.errors import ConfigError
from fed_asi.fleets.device_tables import read_table, unpickled


def written(folder: Path, name: str, content: str | bytes) -> str:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return str(path)


def problems(path: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        read_table(path)
    return caught.value.problems


def test_a_csv_of_ones_own(tmp_path: Path) -> None:
    text = "dense_per_second,ram,up_bits_per_second\n1e9,320 KiB,\n2e9,1 MiB,5e6\n"
    first, second = read_table(written(tmp_path, "a.csv", text))
    assert first.numbers == {"dense_per_second": 1e9, "ram": "320 KiB"}
    assert second.numbers["up_bits_per_second"] == 5e6


def test_fedscales_capacities(tmp_path: Path) -> None:
    clients = {i: {"computation": ms, "communication": 5648.1} for i, ms in enumerate((50.0, 100.0, 400.0))}
    rows = read_table(written(tmp_path, "client_device_capacity", pickle.dumps(clients)))
    assert [row.speed for row in rows] == [2.0, 1.0, 0.25]
    assert rows[0].numbers == {"down_bits_per_second": 5648100.0, "up_bits_per_second": 5648100.0}


def test_flashs_rates(tmp_path: Path) -> None:
    entry = {"down_u": 7491.4, "down_sigma": 3369.2, "up_u": 4935.2, "up_sigma": 2767.3}
    (row,) = read_table(written(tmp_path, "speed_distri.json", json.dumps({"e6899215": entry})))
    assert row.numbers["down_bits_per_second"] == 7491.4 * 8192
    assert row.deviations["up_bits_per_second"] == 2767.3 * 8192


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.csv", "dense_per_second\n0\n", "line 2: dense_per_second: must be above 0"),
        ("a.csv", "speed\n1\n", "unknown column 'speed'"),
        ("a.csv", "dense_per_second,ram\n1\n", "1 values under 2 columns"),
        ("a.csv", "dense_per_second\nfast\n", "must be a number"),
        ("a.csv", "", "unknown column ''"),
        ("a.csv", "dense_per_second\n", "no device in it"),
        ("a.csv", b"\xff\xfe", "is no CSV"),
        ("a", pickle.dumps({1: {"computation": 0, "communication": 5}}), "its speed must be above 0"),
        ("a", pickle.dumps({1: {"computation": 4}}), "needs the numbers computation and communication"),
        ("a", pickle.dumps([1, 2]), "neither a CSV"),
        ("a", b"no pickle", "neither a CSV"),
        ("a.json", '{"x": {"down_u": 0, "down_sigma": 1, "up_u": 1, "up_sigma": 1}}', "must be above 0"),
        ("a.json", '{"x": 3}', "needs the numbers down_u"),
        ("a.json", "{", "is no JSON"),
    ],
)
def test_what_is_wrong_is_said_by_its_place(tmp_path: Path, name: str, content: Any, said: str) -> None:
    assert any(said in problem for problem in problems(written(tmp_path, name, content)))


def test_of_many_problems_the_first_are_said_and_the_others_counted(tmp_path: Path) -> None:
    found = problems(written(tmp_path, "a.csv", "dense_per_second\n" + "0\n" * 20))
    assert len(found) == 6
    assert found[-1] == "a.csv: and 15 more problems"


def test_a_missing_table_is_one_line(tmp_path: Path) -> None:
    assert "cannot be read" in problems(str(tmp_path / "none.csv"))[0]


class Evil:
    def __reduce__(self) -> Any:
        return os.system, ("echo should never run > /dev/null",)


def test_a_pickle_that_is_a_program_is_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = pickle.dumps({1: Evil()})
    monkeypatch.setattr(os, "system", lambda _text: pytest.fail("it ran"))
    assert unpickled(content) is None
    assert "neither a CSV" in problems(written(tmp_path, "a", content))[0]
