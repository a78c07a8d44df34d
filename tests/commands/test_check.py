"""`fed-asi check`: everything loaded and planned, nothing started."""

from __future__ import annotations

import own_project
from fed_asi.commands.main import main


def test_a_project_of_its_own_is_loaded_planned_and_nothing_is_written(tmp_path, capsys, monkeypatch):
    fleet = own_project.write(tmp_path / "project")
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    assert main(["check", str(fleet)]) == 0
    said = capsys.readouterr().out
    assert sorted(tmp_path.rglob("*")) == before
    assert said.count("code: ") == 8
    (tight,) = [line for line in said.splitlines() if line.startswith("tight")]
    assert "4.0 KiB" in tight
    assert "signs-and-size" in tight
    assert "by half.py@" in tight
    assert "nothing was started" in said


def test_a_fleet_without_a_plan_is_said_and_is_no_success(tmp_path, capsys):
    fleet = own_project.write(tmp_path / "project")
    timed = ["--set", "groups.*.quicker=true"]
    assert main(["check", str(fleet), "--set", "groups.*.budget=10", *timed]) == 1
    said = capsys.readouterr().out
    assert "No device has a plan" in said
    assert "Planned by bytes alone" in said


def test_what_only_data_and_network_show_is_said_too(tmp_path, capsys):
    fleet = own_project.write(tmp_path / "project")
    assert main(["check", str(fleet), "--set", "method.layers=9", "--set", "sharding.minimum=60"]) == 2
    said = capsys.readouterr().err
    assert "2 problems" in said
    assert "method.layers" in said
    assert "sharding" in said
