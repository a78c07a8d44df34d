"""The README: every fenced block in it works."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from fed_asi.fleets.file import load_config

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", TEXT, flags=re.S | re.M)


def commands() -> list[list[str]]:
    lines = [line for block in blocks("sh") for line in block.splitlines() if line.strip()]
    return [shlex.split(line, comments=True) for line in lines]


def test_it_is_short_and_names_the_paper_first() -> None:
    assert len(TEXT.splitlines()) <= 120
    first, paper = (
        TEXT.index("ASI"),
        "Beyond Low-rank Decomposition: A Shortcut Approach for Efficient On-Device Learning",
    )
    named = " ".join(TEXT[first - 40 : first + 500].split())
    assert paper in named
    (fleet,) = blocks("toml")
    assert len(fleet.splitlines()) == 10


def test_every_fenced_block_has_a_tested_language() -> None:
    fences = re.findall(r"^```(\w*)$", TEXT, flags=re.M)
    assert set(fences[::2]) <= {"sh", "python", "toml", "text"}
    assert {words[0] for words in commands()} <= {"make", "fed-asi", "docker"}


@pytest.mark.parametrize("block", blocks("python"), ids=range(len(blocks("python"))))
def test_python_runs(block: str) -> None:
    exec(compile(block, "README.md", "exec"), {"__name__": "readme"})


@pytest.mark.parametrize("block", blocks("toml"), ids=range(len(blocks("toml"))))
def test_fleet_files_are_valid(block: str, tmp_path: Path) -> None:
    file = tmp_path / "fleet.toml"
    file.write_text(block)
    load_config(file)


@pytest.mark.parametrize("words", [w for w in commands() if w[0] == "make"], ids=" ".join)
def test_make_targets_exist(words: list[str]) -> None:
    assert re.search(rf"^{words[1]}:.*##", (ROOT / "Makefile").read_text(), flags=re.M)


@pytest.mark.slow
def test_the_commands_in_their_order(tmp_path: Path, cifar10_dir: Path, weights_dir: Path) -> None:
    """The README's own fleet and commands, on real images; --set only makes them shorter."""
    (tmp_path / "mine.toml").write_text(blocks("toml")[0])
    shorter = ["--set", "rounds=6", "--set", "model.resolution=64", "--set", "data.limit=600"]
    shorter += ["--set", "data.test_limit=200", "--set", "data.public=160", "--backend", "loop"]
    shorter += ["--set", "method.calibration_images=32"]
    environment = os.environ | {"FED_ASI_WEIGHTS_DIR": str(weights_dir), "FED_ASI_DATA_DIR": str(cifar10_dir)}
    study = "experiments/studies/demo_budgets.toml"  # of the clone, where a reader types these lines
    places = {"folder-with-cifar10.npz": str(cifar10_dir), study: str(ROOT / study)}
    runs = 0
    for words in (w for w in commands() if w[0] == "fed-asi"):
        given = [places.get(word, word) for word in words[1:]]
        if words[1] == "compare" and runs == 1:  # it compares two runs, so make the second
            _fed_asi(["run", "mine.toml", *shorter], tmp_path, environment)
        if words[1] == "run":
            given += shorter
            runs += 1
        if words[1] == "study":
            given += ["--only", "*seed-0", "--jobs", "1"]
        _fed_asi(given, tmp_path, environment)
    assert (tmp_path / "runs/mine/run.sqlite").exists()
    assert (tmp_path / "runs/mine-2/run.sqlite").exists()
    assert (tmp_path / "runs/demo_budgets/study.json").exists()


def _fed_asi(arguments: list[str], folder: Path, environment: dict[str, str]) -> None:
    command = [sys.executable, "-m", "fed_asi", *arguments]
    done = subprocess.run(
        command, check=False, cwd=folder, env=environment, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, f"{shlex.join(arguments)}\n{done.stdout}\n{done.stderr}"
