"""`fed-asi doctor`: every check, on a machine that has what it looks for and on one that does not."""

from __future__ import annotations

import json
import os
import re
import shutil
from importlib import metadata
from pathlib import Path

import pytest

from fed_asi import machine
from fed_asi.commands import doctor
from fed_asi.commands.console import OK, USER_ERROR
from fed_asi.commands.doctor import CHECKS, OF_TESTS, VARIABLES, Finding, examine, register
from fed_asi.commands.main import main
from fed_asi.errors import ConfigError
from fed_asi.gpus import Gpu, why_none

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A machine of which nothing is known but what a test says: no engine, and folders of its own."""

    def no_engine() -> None:
        raise ConfigError("no container engine here: install Docker")

    for name in [*os.environ]:
        if name.startswith("FED_ASI_"):
            monkeypatch.delenv(name)
    monkeypatch.setattr(doctor, "check_engine", no_engine)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)


def found() -> dict[str, Finding]:
    return {one.about: one for one in examine()}


def test_this_machine_can_run(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor"]) == OK

    *lines, last = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r"0 wrong, \d+ notes, \d+ ok", last)
    assert ["ok", "torch", metadata.version("torch")] in [line.split() for line in lines]
    after = lines.index(next(line for line in lines if "no container engine here" in line)) + 1
    assert lines[after].split() == ["->", "install", "Docker"]


def test_json_says_the_same(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    room = shutil.disk_usage(".")  # others write to the disk in between
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: room)
    assert main(["doctor", "--json"]) == OK

    assert [Finding(**one) for one in json.loads(capsys.readouterr().out)["findings"]] == examine()


def test_packages_that_are_missing_or_of_other_versions(monkeypatch: pytest.MonkeyPatch) -> None:
    real = metadata.version

    def version(name: str) -> str:
        if name == "scipy":
            raise metadata.PackageNotFoundError(name)
        return "99.0" if name == "flwr" else real(name)

    monkeypatch.setattr(metadata, "version", version)

    scipy, flwr = found()["scipy"], found()["flwr"]

    assert (scipy.state, scipy.found) == ("wrong", "missing")
    assert re.fullmatch(r'pip install "scipy[<>=.,\d]+"', scipy.do)
    assert flwr.state == "note"
    assert flwr.found.startswith("99.0, tested with ")


def test_an_old_python(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.python_version", lambda: "3.9.1")
    assert (found()["python"].state, found()["python"].do) == ("wrong", "install Python >=3.11")


@pytest.mark.parametrize(("version", "state"), [("3.13.0", "ok"), ("3.14.1", "note")])
def test_a_python_is_one_that_was_tested(monkeypatch: pytest.MonkeyPatch, version: str, state: str) -> None:
    monkeypatch.setattr("platform.python_version", lambda: version)
    monkeypatch.setattr(doctor.metadata, "metadata", lambda _name: Metadata())

    python = found()["python"]

    assert python.state == state
    assert python.found.endswith(", tested with 3.11, 3.13") == (state == "note")
    assert python.do == ("install Python 3.13, or try it" if state == "note" else "")


def test_packages_that_were_built_for_others(monkeypatch: pytest.MonkeyPatch) -> None:
    asks = {
        "fed-asi": ["vision>=1,<3", "flower[rays]>=1", "not-here", 'mine==1; extra == "dev"'],
        "vision": ["fire==2.0", "numbers>=1"],
        "flower": ['ray==3.0; extra == "rays"', 'paper==1; extra == "print"'],
    }
    have = {"fed-asi": "1", "vision": "2", "flower": "1", "fire": "2.1+cpu", "numbers": "1.5"}

    def requires(name: str) -> list[str]:
        if name == "not-here":
            raise metadata.PackageNotFoundError(name)
        return asks.get(name, [])

    def version(name: str) -> str:
        if name not in have:
            raise metadata.PackageNotFoundError(name)
        return have[name]

    monkeypatch.setattr(metadata, "requires", requires)
    monkeypatch.setattr(metadata, "version", version)

    assert [one for one in examine() if "asks for it" in one.found] == [
        Finding(
            "fire==2.0",
            "note",
            "vision 2 asks for it; here is 2.1+cpu",
            'pip install "vision<3,>=1" "fire==2.0"',
        ),
        Finding(
            "ray==3.0",
            "note",
            "flower 1 asks for it; here is none",
            'pip install "flower[rays]>=1" "ray==3.0"',
        ),
    ]


def test_an_extra_says_how_it_is_had(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metadata, "requires", lambda _name: ['pyarrow>=15; extra == "parquet"', "numpy>=1"])
    monkeypatch.setattr(doctor.metadata, "metadata", lambda _name: Metadata())
    assert found()["parquet"].state == "ok"

    monkeypatch.setattr(metadata, "requires", lambda _name: ['no-such-package; extra == "parquet"'])
    assert found()["parquet"] == Finding(
        "parquet", "note", "no no-such-package", 'pip install "fed-asi[parquet]"'
    )


class Metadata(dict[str, str]):
    def __missing__(self, key: str) -> str:
        return ">=3.11"

    def get_all(self, key: str, default: list[str]) -> list[str]:
        if key == "Classifier":
            return [f"Programming Language :: Python :: {one}" for one in ("3", "3.11", "3.13", "3 :: Only")]
        return ["dev", "parquet"]


def test_folders(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert found()["runs"].state == found()["data"].state == "ok"
    assert not (tmp_path / "runs").exists(), "a look makes nothing"
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("FED_ASI_RUNS_DIR", str(tmp_path / "file" / "runs"))
    monkeypatch.setenv("FED_ASI_DATA_DIR", str(tmp_path / "nowhere"))
    monkeypatch.setenv("FED_ASI_WEIGHTS_DIR", str(tmp_path))

    assert found()["runs"].found == f"{tmp_path}/file/runs: {tmp_path}/file is no folder"
    assert found()["data"].do == "unset FED_ASI_DATA_DIR"
    assert found()["weights"].found == f"{tmp_path} (FED_ASI_WEIGHTS_DIR)"
    assert main(["doctor"]) == USER_ERROR


def test_little_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "LITTLE_DISK", 2**62)
    monkeypatch.setattr(doctor, "LITTLE_MEMORY", 2**62)

    assert (found()["runs"].state, found()["runs"].do) == ("note", "make room")
    assert found()["memory"].state == "note"


def test_a_containers_limit_is_the_memory_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "read_text", lambda _path: "1048576\n")
    assert machine.memory_here() == 1 << 20
    monkeypatch.setattr(Path, "read_text", lambda _path: "max\n")
    assert machine.memory_here() == machine.machine_bytes()


def test_gpus_are_named_with_what_a_fleet_file_calls_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "gpus_here", list)
    assert found()["gpu"].found == f"none ({why_none()}); nothing here needs one"
    two = [Gpu(0, "card", 1 << 33), Gpu(1, "other card", 1 << 34)]
    monkeypatch.setattr(doctor, "gpus_here", lambda: two)
    said = [one.found for one in doctor.examine() if one.about == "gpu"]
    assert said == [
        'cuda:0 card, 8.0 GiB; a run with compute.device = "cuda:0" computes on it',
        'cuda:1 other card, 16.0 GiB; a run with compute.device = "cuda:1" computes on it',
    ]


def test_a_variable_that_nothing_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FED_ASI_DATADIR", "/data")
    assert found()["FED_ASI_DATADIR"].do.startswith("did you mean FED_ASI_DATA_DIR")


def test_variables_are_those_that_are_read() -> None:
    code = [
        path for room in ("fed_asi", "deploy", "clients", "server") for path in (ROOT / room).rglob("*.py")
    ]
    read = {
        name
        for path in code
        if path.name != "doctor.py"
        for name in re.findall(r"FED_ASI_[A-Z_]*[A-Z]\b", path.read_text())
    }
    assert read - OF_TESTS == set(VARIABLES)


def test_a_check_of_ones_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "CHECKS", CHECKS.copy())

    @register
    def _mine():
        yield Finding("mine", "wrong", "broken\x1b[31m", "mend it")

    assert "mine" in found()
    assert main(["doctor"]) == USER_ERROR
