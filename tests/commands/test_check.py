"""`fed-asi check`: everything is loaded and planned, and nothing is started."""

from __future__ import annotations

import json
from types import SimpleNamespace

import own_project
from fed_asi.commands.main import main
from fed_asi.fleets.resources import Resources
from fed_asi.methods import BiasOnly
from fed_asi.planning.device_plans import Attempt
from fed_asi.workplace.ahead import Ahead


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


def test_whole_devices_are_told_by_ram_flash_update_and_pixels(tmp_path, capsys, monkeypatch):
    fleet = own_project.write(tmp_path / "project")
    plan = SimpleNamespace(
        planned_bytes=2048, micro_batch=1, methods={"a": BiasOnly()}, update="layer", storage="int8"
    )
    memory = SimpleNamespace(ram_bytes=30 * 1024, flash_bytes=40 * 1024, phase="trunk")
    board, free = Resources(None, 8, ram_bytes=32 * 1024), Resources(4096, 8)
    found = [
        Ahead("board", 3, 1, board, 96, Attempt(plan), memory),
        Ahead("board", 1, 1, board, 64, None, cause="at 64 x 64 pixels: ram 32.0 KiB is below (all of it)"),
        Ahead("free", 2, 1, free, 128, Attempt(plan, "fewer-layers")),
    ]
    monkeypatch.setattr("fed_asi.commands.check.look_ahead", lambda *_, **__: found)
    assert main(["check", str(fleet), "--wide"]) == 0
    head, *rows = [line.split() for line in capsys.readouterr().out.splitlines() if "  " in line][:4]
    assert head[-6:] == ["RAM", "flash", "update", "pixels", "micro-batch", "method"]
    assert rows[0][-8:] == ["30.0", "KiB", "40.0", "KiB", "layer", "96", "1", "bias"]
    assert rows[1][5:8] == ["64", "at", "64"]
    assert "(all" not in rows[1]
    assert rows[2][-8:] == ["-", "-", "-", "128", "1", "bias", "by", "fewer-layers"]
    assert main(["check", str(fleet), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)["plans"]
    assert [one["resolution"] for one in told] == [96, 64, 128]
    said = {key: told[0][key] for key in ("ram_bytes", "flash_bytes", "phase", "update", "storage")}
    assert said == {
        "ram_bytes": 30 * 1024,
        "flash_bytes": 40 * 1024,
        "phase": "trunk",
        "update": "layer",
        "storage": "int8",
    }
    assert "ram_bytes" not in told[2]


def test_what_only_data_and_network_show_is_said_too(tmp_path, capsys):
    fleet = own_project.write(tmp_path / "project")
    assert main(["check", str(fleet), "--set", "method.layers=9", "--set", "sharding.minimum=60"]) == 2
    said = capsys.readouterr().err
    assert "2 problems" in said
    assert "method.layers" in said
    assert "sharding" in said
