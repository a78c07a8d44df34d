"""What `pip install` gives: fed_asi and its command, nothing else, and runs that need no clone."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from collections.abc import Sequence
from pathlib import Path

import pytest

from fed_asi.results.store import RunStore

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
ROOT = Path(__file__).parents[1]

FLEET = """
name = "installed"
seed = 1
rounds = 2
cohort = 2
[model]
name = "tiny"
weights = "none"
resolution = 32
[data]
source = "digits"
public = 64
limit = 240
test_limit = 64
[method]
name = "asi"
layers = 2
calibration_images = 32
[compute]
workers = 1
[[groups]]
name = "all"
count = 2
budget = "256 KiB"
batch_size = 16
"""


def run(command: Sequence[object], folder: Path) -> str:
    """Return what a command prints, run in a folder where nothing of the clone is to be found."""
    return ran(command, folder).stdout


def ran(command: Sequence[object], folder: Path) -> subprocess.CompletedProcess[str]:
    """Return a command that has been run so, without an error."""
    environment = {
        key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "FED_ASI_"))
    }
    words = [str(word) for word in command]
    done = subprocess.run(words, check=False, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, f"{' '.join(words)}\n{done.stdout}\n{done.stderr}"
    return done


@pytest.fixture(scope="module")
def copied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the clone, to build in."""
    folder = tmp_path_factory.mktemp("wheel")
    named = (
        "fed_asi",
        "clients",
        "server",
        "deploy",
        "experiments",
        "tests",
        "pyproject.toml",
        "MANIFEST.in",
        *("README.md", "CHANGELOG.md", "CITATION.cff", "SECURITY.md", "LICENSE"),
    )
    for path in (ROOT / name for name in named):
        copy = shutil.copytree if path.is_dir() else shutil.copy2
        copy(path, folder / path.name)
    return folder


@pytest.fixture(scope="module")
def wheel(copied: Path) -> Path:
    """The wheel, built with the setuptools that is here."""
    folder = copied
    options = ["--no-deps", "--no-build-isolation", "--quiet", "--wheel-dir", "built"]
    run([sys.executable, "-m", "pip", "wheel", ".", *options], folder)
    (built,) = (folder / "built").glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of commands of a fresh environment with the wheel in it.

    What fed_asi depends on is borrowed from the environment of the tests, but not what is installed there from a clone.
    """
    home = tmp_path_factory.mktemp("environment")
    venv.create(home, with_pip=False)
    python = home / "bin" / "python"
    run([sys.executable, "-m", "pip", "--python", python, "install", "--no-deps", "--quiet", wheel], home)
    packages = sysconfig.get_path("purelib", vars={"base": str(home), "platbase": str(home)})
    borrowed = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    # A path in a .pth file is looked in; .pth files in it, such as an editable fed_asi's, are not.
    (Path(packages) / "borrowed.pth").write_text("".join(f"{path}\n" for path in borrowed))
    return home / "bin"


def test_the_wheel_holds_the_package_alone(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {name.split("/")[0] for name in names} == {"fed_asi", "fed_asi-0.1.0.dist-info"}
    ours = {
        str(path.relative_to(ROOT))
        for end in ("py", "toml", "in")
        for path in (ROOT / "fed_asi").rglob(f"*.{end}")
    }
    assert {"fed_asi/fleets/presets/stm32f746.toml", "fed_asi/commands/project/fleet.toml.in"} <= ours
    assert {name for name in names if name.startswith("fed_asi/")} == {*ours, "fed_asi/py.typed"}


def test_a_source_distribution_makes_the_same_wheel_and_nothing_warns(copied: Path, wheel: Path) -> None:
    build = "import os, shutil, sys; from setuptools import build_meta; "
    build += "source = build_meta.build_sdist('dist'); shutil.unpack_archive('dist/' + source, 'from'); "
    build += "os.chdir('from/' + source.removesuffix('.tar.gz')); build_meta.build_wheel('dist')"
    done = ran([sys.executable, "-W", "error", "-c", build], copied)
    assert "warning" not in f"{done.stdout}{done.stderr}".lower()
    (again,) = copied.glob("from/*/dist/*.whl")
    assert set(zipfile.ZipFile(again).namelist()) == set(zipfile.ZipFile(wheel).namelist())
    assert {path.name for path in copied.glob("from/*/*")} >= {
        "CHANGELOG.md",
        "SECURITY.md",
        "LICENSE",
        "fed_asi",
    }
    assert not list(copied.glob("from/*/tests"))


def test_nothing_is_installed_under_names_of_everybody(installed: Path, tmp_path: Path) -> None:
    code = "import fed_asi; from importlib.util import find_spec\n"
    code += "print(fed_asi.__file__, *(n for n in ('clients', 'server', 'deploy', 'tests') if find_spec(n)))"
    found = run([installed / "python", "-c", code], tmp_path).split()
    assert len(found) == 1
    assert Path(found[0]).is_relative_to(installed.parent)


def test_the_command_is_there_under_both_its_names(installed: Path, tmp_path: Path) -> None:
    assert run([installed / "fed-asi", "--version"], tmp_path) == "fed-asi 0.1.0\n"
    assert "usage: fed-asi run" in run([installed / "python", "-m", "fed_asi", "run", "--help"], tmp_path)


def test_runs_on_both_back_ends_are_equal_to_the_bit(installed: Path, tmp_path: Path) -> None:
    (tmp_path / "fleet.toml").write_text(FLEET)
    for backend in ("loop", "flower"):
        out = run(
            [installed / "fed-asi", "run", "fleet.toml", "--backend", backend, "--out", backend], tmp_path
        )
        assert "what each budget bought" in out
        with RunStore.read(tmp_path / backend / "installed") as store:
            assert store.exit_code() == 0
    said = run([installed / "fed-asi", "compare", "loop/installed", "flower/installed"], tmp_path)
    assert "weights: equal to the bit" in said
