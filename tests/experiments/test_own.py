"""The project of experiments/own, outside the clone, run by `fed-asi run` and by Flower's own command."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from fed_asi.commands.compose_file import compose_text
from fed_asi.commands.main import main
from fed_asi.fleets.file import load_config
from fed_asi.flower.environment import QUIET
from fed_asi.results.compare import compare
from fed_asi.results.store import RunStore
from ports import free_port

ROOT = Path(__file__).parents[2]
OWN = ROOT / "experiments" / "own"
BIN = Path(sys.executable).parent


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the project, with one round of little work in its fleet file."""
    folder = tmp_path_factory.mktemp("outside") / "own"
    shutil.copytree(OWN, folder, ignore=shutil.ignore_patterns("runs", "__pycache__"))
    text = (folder / "fleet.toml").read_text()
    for was, now in (
        ("rounds = 5", "rounds = 1"),
        ("cohort = 6", "cohort = 2"),
        ("epochs = 3", "epochs = 1"),
    ):
        assert was in text
        text = text.replace(was, now)
    (folder / "fleet.toml").write_text(text + "\n[pretrain]\nepochs = 1\n")
    return folder


@pytest.fixture(scope="module")
def on_the_loop(project: Path) -> Path:
    """The run by `fed-asi run`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FED_ASI_FEATURES_DIR", str(project.parent / "features"))
        fleet, out = str(project / "fleet.toml"), str(project.parent / "loop")
        assert main(["run", fleet, "--backend", "loop", "--out", out]) == 0
    return project.parent / "loop" / "own"


def test_network_images_method_and_strategy_are_its_own(on_the_loop: Path) -> None:
    with RunStore.read(on_the_loop) as store:
        config, rows = store.config(), list(store.device_rounds())
        assert store.exit_code() == 0
    named = (config.model.name, config.data.source, config.method.name, config.aggregate.strategy)
    assert all(name.startswith("own.py@") for name in named)
    assert len(config.code) == 1
    assert [row.outcome for row in rows] == ["trained"] * 2
    assert {row.method for row in rows} == {"largest+vanilla"}  # and the classifier's input whole
    assert all(0 < row.measured_bytes <= row.planned_bytes for row in rows)


def test_a_strategy_that_fails_in_a_round_is_one_line_with_its_own(
    project: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FED_ASI_FEATURES_DIR", str(project.parent / "features"))
    folder = shutil.copytree(project, tmp_path / "own")
    file = folder / "own.py"
    file.write_text(file.read_text().replace("return now + self.gain", "return 1 / 0 + self.gain"))
    assert (
        main(["run", str(folder / "fleet.toml"), "--backend", "loop", "--out", str(tmp_path / "runs")]) == 1
    )
    said = capsys.readouterr().err.splitlines()[-1]
    line = [one.count("1 / 0") for one in file.read_text().splitlines()].index(1) + 1
    assert said.startswith(
        f"fed-asi: an error in own.py, line {line}: ZeroDivisionError: division by zero; details in "
    )
    Path(said.rpartition(" ")[2]).unlink()


def test_what_flower_reads_is_what_a_new_project_has() -> None:
    written = ROOT / "fed_asi" / "commands" / "project"
    for name in ("app.py", "pyproject.toml"):
        assert (OWN / name).read_text() == (written / f"{name}.in").read_text().replace("NAME", "own")


def test_containers_are_given_its_file(project: Path, tmp_path: Path) -> None:
    fleet = project / "fleet.toml"
    text = compose_text(load_config(fleet), fleet, project.parent)
    assert "./own/own.py:/fleet/own.py:ro" in text


@pytest.fixture
def superlink(tmp_path: Path) -> Iterator[dict[str, str]]:
    """An environment whose connection "test" is a SuperLink of this test's own, as `flwr run` would start one."""
    environment = os.environ | QUIET | {"FLWR_HOME": str(tmp_path / "flwr"), "PYTHONPATH": str(ROOT)}
    environment |= {
        "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
        "FED_ASI_RUNS_DIR": str(tmp_path / "runs"),
    }
    ports = free_port(), free_port()
    (tmp_path / "flwr").mkdir()
    (tmp_path / "flwr" / "config.toml").write_text(
        f'[superlink.test]\naddress = "127.0.0.1:{ports[0]}"\ninsecure = true\n'
    )
    command = [
        "flower-superlink",
        "--insecure",
        "--simulation",
        "--isolation",
        "subprocess",
        "--host",
        "127.0.0.1",
    ]
    command += ["--port", str(ports[0]), "--control-api-address", f"127.0.0.1:{ports[1]}"]
    with (tmp_path / "superlink.log").open("w") as log:
        link = subprocess.Popen(
            [BIN / command[0], *command[1:]],
            cwd=tmp_path,
            env=environment,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        _wait(ports[0], link)
        yield environment
    finally:
        os.killpg(link.pid, signal.SIGTERM)
        link.wait(timeout=60)


def _wait(port: int, link: subprocess.Popen[bytes]) -> None:
    """Wait until it answers, however long a busy machine takes; the test's own timeout is the only one."""
    while link.poll() is None:
        with socket.socket() as there:
            if there.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.2)
    raise RuntimeError("the SuperLink has ended")


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_flowers_own_command_gives_the_same_weights(
    project: Path, on_the_loop: Path, superlink: dict[str, str], tmp_path: Path
) -> None:
    devices = "num-supernodes=8 client-resources-num-cpus=1"
    command = [BIN / "flwr", "run", ".", "test", "--stream", "--federation-config", devices]
    done = subprocess.run(command, check=False, cwd=project, env=superlink, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    found = tmp_path / "runs" / "own"
    assert (found / "run.sqlite").is_file(), done.stdout + done.stderr
    with RunStore.read(found) as store:
        assert store.exit_code() == 0
        assert [row.outcome for row in store.device_rounds()] == ["trained"] * 2
    assert compare(on_the_loop, found).equal_weights
