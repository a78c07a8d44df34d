"""`fed-asi init`: a project that can be checked and run at once, also with Flower's own command."""

from __future__ import annotations

import importlib.util
import re
import tomllib
from pathlib import Path

import pytest

from fed_asi.commands.main import main


@pytest.fixture
def project(tmp_path, capsys) -> Path:
    assert main(["init", str(tmp_path / "my-fleet")]) == 0
    capsys.readouterr()
    return tmp_path / "my-fleet"


def test_what_it_writes_is_checked_as_it_is(project, capsys):
    assert main(["check", str(project / "fleet.toml")]) == 0
    said = capsys.readouterr().out
    assert re.search(r"^sensor +6 ", said, re.MULTILINE)
    assert "none" not in said


def test_it_says_what_to_do_next_and_names_the_run_after_the_folder(tmp_path, capsys):
    assert main(["init", str(tmp_path / "two")]) == 0
    said = capsys.readouterr().out
    lines = [line.strip() for line in said.splitlines()]
    assert lines[2:5] == [f"cd {tmp_path / 'two'}", "fed-asi check fleet.toml", "fed-asi run fleet.toml"]
    devices = sum(
        group["count"] for group in tomllib.loads((tmp_path / "two" / "fleet.toml").read_text())["groups"]
    )
    assert f"num-supernodes={devices} " in lines[-1]
    assert tomllib.loads((tmp_path / "two" / "fleet.toml").read_text())["name"] == "two"
    assert "NAME" not in (tmp_path / "two" / "pyproject.toml").read_text()


def test_nothing_that_is_there_is_written_over(project, capsys):
    before = (project / "network.py").read_text()
    assert main(["init", str(project)]) == 2
    assert "network.py" in capsys.readouterr().err
    assert (project / "network.py").read_text() == before


def test_a_name_that_can_name_no_run_is_one_line(tmp_path, capsys):
    assert main(["init", str(tmp_path / "my fleet")]) == 2
    assert "becomes a folder's name" in capsys.readouterr().err


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of what Flower imports
def test_its_apps_are_what_flower_asks_for(project):
    from flwr.clientapp import ClientApp
    from flwr.serverapp import ServerApp

    settings = tomllib.loads((project / "pyproject.toml").read_text())["tool"]["flwr"]["app"]
    assert settings["components"] == {"serverapp": "app:server", "clientapp": "app:client"}
    assert (project / settings["config"]["fleet"]).is_file()
    spec = importlib.util.spec_from_file_location("app_of_a_new_project", project / "app.py")
    app = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(app)
    assert isinstance(app.server, ServerApp)
    assert isinstance(app.client, ClientApp)
