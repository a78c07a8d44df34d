"""A fleet as a compose file: its contents, and what is refused before anything starts."""

from __future__ import annotations

import json
import socket
import subprocess
from pathlib import Path

import pytest
import yaml

import own_project
from fed_asi.commands import compose, compose_file
from fed_asi.commands import main as command
from fed_asi.errors import ConfigError
from fed_asi.fleets.file import load_config
from fed_asi.fleets.fleet import build
from fed_asi.texts import visible
from hostile_names import RECORDED

ROOT = Path(__file__).parents[2]
FLEET = ROOT / "experiments" / "fleets" / "compose.toml"


def main(words: list[str]) -> int:
    return command.main(["compose", *words])


SCHEDULED = """
name = "scheduled"
rounds = 4
cohort = 2
budgets_csv = "own.csv"
[[groups]]
name = "all"
count = 3
budget = "64 KiB"
schedule = [{ round = 2, budget = "96 KiB" }]
"""


@pytest.fixture
def written(tmp_path: Path) -> Path:
    (tmp_path / "own.csv").write_text("1,unlimited\n")
    path = tmp_path / "fleet.toml"
    path.write_text(SCHEDULED)
    return path


def services(path: Path, folder: Path) -> dict:
    text = compose_file.compose_text(load_config(path), path, folder)
    return yaml.safe_load(text)["services"]


def test_committed_file_is_what_the_command_writes():
    written = (ROOT / "docker-compose.yml").read_text()
    assert written == compose_file.compose_text(load_config(FLEET), FLEET, ROOT)


def test_files_that_describe_devices_are_seen_by_the_runner(tmp_path: Path):
    folder = tmp_path / "fleets"
    folder.mkdir()
    (folder / "a.csv").write_text("x,0,100\n")
    (folder / "rows.csv").write_text("dense_per_second\n1e9\n")
    path = folder / "fleet.toml"
    told = (
        'device = { preset = "rp2040", table = "rows.csv" }\npresence = { kind = "trace", trace = "a.csv" }\n'
    )
    path.write_text(SCHEDULED.replace('budgets_csv = "own.csv"\n', "") + told)
    volumes = services(path, tmp_path)["runner"]["volumes"]
    assert "./fleets/rows.csv:/fleet/rows.csv:ro" in volumes
    assert "./fleets/a.csv:/fleet/a.csv:ro" in volumes
    (tmp_path / "b.csv").write_text("x,0,100\n")
    path.write_text(path.read_text().replace('"a.csv"', '"../b.csv"'))
    with pytest.raises(ConfigError, match="sees no more than the fleet file's folder"):
        services(path, tmp_path)


def test_files_of_code_are_seen_by_the_runner_and_packages_of_ones_own_refused(tmp_path: Path):
    fleet = own_project.write(tmp_path / "project")
    text = compose_file.compose_text(load_config(fleet), fleet, tmp_path)
    mounted = yaml.safe_load(text)["services"]["runner"]["volumes"]
    for name in own_project.files():
        assert f"./project/{name}:/fleet/{name}:ro" in mounted
    fleet.write_text(fleet.read_text().replace("./net.py:build", "yaml.nodes:Node"))
    with pytest.raises(
        ConfigError, match=r"model\.name: the containers do not have the package yaml; name a file"
    ):
        compose_file.compose_text(load_config(FLEET), fleet, tmp_path)
    fleet.write_text(fleet.read_text().replace("yaml.nodes:Node", "../net.py:build"))
    with pytest.raises(ConfigError, match="no more than the fleet file's folder"):
        compose_file.compose_text(load_config(FLEET), fleet, tmp_path)


def test_what_the_image_has_not_is_refused():
    config = load_config(FLEET)
    asked = config.model_copy(
        update={"compute": config.compute.model_copy(update={"trunk_engine": "onnxruntime"})}
    )
    with pytest.raises(ConfigError, match=r"compute\.trunk_engine: the containers do not have onnxruntime"):
        compose_file.compose_text(asked, FLEET, ROOT)


def test_every_device_has_a_container_with_its_budget(written):
    found = services(written, written.parent)
    assert [name for name in found if name.startswith("device-")] == ["device-0", "device-1", "device-2"]
    told = [found[f"device-{device}"]["command"][-1] for device in range(3)]
    assert told == [
        "partition-id=0 num-partitions=3 budget=98304",  # the largest its schedule ever allows
        "partition-id=1 num-partitions=3",  # unlimited
        "partition-id=2 num-partitions=3 budget=98304",
    ]
    assert any(mount.endswith("own.csv:/fleet/own.csv:ro") for mount in found["runner"]["volumes"])


def test_a_device_of_a_preset_is_told_its_ram_and_flash(tmp_path):
    path = tmp_path / "fleet.toml"
    of_preset = 'device = "stm32f746"\nram = "device"\nflash = "device"\n'
    path.write_text(
        SCHEDULED.replace('budgets_csv = "own.csv"\n', "").replace("schedule = [", f"{of_preset}schedule = [")
    )
    text = compose_file.compose_text(load_config(path), path, tmp_path)
    device = yaml.safe_load(text)["services"]["device-0"]
    assert device["command"][-1] == "partition-id=0 num-partitions=3 budget=98304 ram=327680 flash=1048576"
    assert "device-0:  # all: 320.0 KiB RAM, 1.0 MiB flash, 64.0 KiB\n" in text
    needed = compose_file.DEVICE_BYTES + compose_file.MARGIN_BYTES + compose_file.WHOLE_DEVICE_BYTES
    assert compose_file.limit_bytes(next(iter(build(load_config(path))))) == needed + 98304


def test_memory_limit_covers_the_processes_and_the_budget(written):
    devices = list(build(load_config(written)))
    needed = compose_file.DEVICE_BYTES + compose_file.MARGIN_BYTES
    assert [compose_file.limit_bytes(device) for device in devices] == [
        needed + 98304,
        needed,
        needed + 98304,
    ]
    assert services(written, written.parent)["device-0"]["mem_limit"] == f"{needed // compose_file.MIB + 1}m"


def test_every_service_is_hardened_and_nothing_leaves_loopback():
    for name, service in services(FLEET, ROOT).items():
        assert service["read_only"], name
        assert service["init"], name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert service["mem_limit"], name
        for port in service.get("ports", ()):
            assert port.startswith("127.0.0.1:"), name


def test_devices_see_neither_records_nor_operator_nor_each_other():
    found = services(FLEET, ROOT)
    for device in range(4):
        service = found[f"device-{device}"]
        assert service["networks"] == ["devices"]
        assert [mount for mount in service["volumes"] if mount.startswith("device-")] == [
            f"device-{device}:/own"
        ]
        assert not [mount for mount in service["volumes"] if mount.startswith(("runs", "authority"))]


def test_fleet_larger_than_the_machine_is_refused_with_the_number_that_fits():
    devices = build(load_config(FLEET))
    limits = [compose_file.limit_bytes(device) for device in devices]
    fixed = (
        compose_file.SUPERLINK_BYTES
        + compose_file.RUNNER_BYTES
        + compose_file.PAGE_BYTES
        + compose_file.RESERVE_BYTES
    )
    compose.check_fits(devices, fixed + sum(limits))
    with pytest.raises(ConfigError, match=r": 2 fit\. Lower the groups' counts"):
        compose.check_fits(devices, fixed + sum(limits[:2]) + 1)
    with pytest.raises(ConfigError, match=r": 0 fit\."):
        compose.check_fits(devices, fixed)


def test_missing_engine_is_one_line(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigError, match="no container engine here: install Docker"):
        compose.check_engine()


def test_engine_that_does_not_answer_is_one_line(monkeypatch, tmp_path):
    (tmp_path / "docker").write_text("#!/bin/sh\nexit 1\n")
    (tmp_path / "docker").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    with pytest.raises(ConfigError, match="Docker does not answer"):
        compose.check_engine()


def test_engine_that_hangs_is_one_line(monkeypatch):
    def hang(command, timeout, **_options):
        raise subprocess.TimeoutExpired(command, timeout)

    monkeypatch.setattr(compose.shutil, "which", lambda _name: "docker")
    monkeypatch.setattr(compose.subprocess, "run", hang)
    with pytest.raises(ConfigError, match="Docker does not answer"):
        compose.check_engine()


def test_containers_have_no_gpu():
    compose.check_device("cpu")
    with pytest.raises(
        ConfigError, match=r'^compute\.device: "cuda", but containers are given no GPU: use "cpu"'
    ):
        compose.check_device("cuda")


def test_port_in_use_is_one_line():
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(ConfigError, match=f"port {port} is in use: .*FED_ASI_PORT={port + 1}"):
            compose.check_port(port)
    compose.check_port(0)  # one that is free; another process may have the one above by now


def test_command_writes_the_file(written, tmp_path, capsys):
    out = tmp_path / "compose.yml"
    assert main([str(written), "--out", str(out), "--memory", "16 GiB"]) == 0
    assert "3 devices, 4 rounds" in capsys.readouterr().out
    assert yaml.safe_load(out.read_text())["services"]["superlink"]["build"]["context"]
    assert main([str(written), "--out", str(out), "--memory", "4 GiB"]) == 2
    assert "fit" in capsys.readouterr().err


def test_names_are_no_yaml_and_no_variables(tmp_path):
    folder = tmp_path / 'my "fleet" #1, ${HOME} [x]'
    folder.mkdir()
    path = folder / "a b, c] $x.toml"
    names = [name for name in RECORDED if name.isprintable()]
    path.write_text(
        'name = "hostile"\nrounds = 1\ncohort = 1\n'
        + "".join(f"[[groups]]\nname = {json.dumps(name)}\ncount = 1\nbudget = 65536\n" for name in RECORDED)
    )
    text = compose_file.compose_text(load_config(path), path, tmp_path)
    found = yaml.safe_load(text)
    assert set(found["services"]) == {
        "superlink",
        "runner",
        "page",
        *(f"device-{n}" for n in range(len(RECORDED))),
    }
    runner = found["services"]["runner"]
    assert runner["command"][-1] == "/fleet/a b, c] $$x.toml"  # compose reads $$ as $
    assert (
        runner["volumes"][-1] == './my "fleet" #1, $${HOME} [x]/a b, c] $$x.toml:/fleet/a b, c] $$x.toml:ro'
    )
    assert all(f"device-{n}:  # " in text for n in range(len(RECORDED)))
    assert all(visible(name) in text for name in names)


@pytest.mark.parametrize("name", ["a:b", "lone\udc80"])
def test_paths_that_compose_cannot_mount_are_refused_by_name(written, name, capsys):
    other = written.rename(written.parent / f"{name}.toml")
    assert main([str(other), "--out", str(written.parent / "compose.yml"), "--memory", "16 GiB"]) == 2
    assert visible(name) in capsys.readouterr().err


def test_a_folder_that_is_not_there_is_made_and_one_that_cannot_be_is_one_line(written, tmp_path, capsys):
    out = tmp_path / "new" / "folder" / "compose.yml"
    assert main([str(written), "--out", str(out), "--memory", "16 GiB"]) == 0
    assert out.exists()
    capsys.readouterr()
    assert main([str(written), "--out", str(out / "x.yml"), "--memory", "16 GiB"]) == 2
    assert capsys.readouterr().err == f"fed-asi: cannot write {out}/x.yml: {out} is not a folder\n"
    assert main([str(written), "--out", str(tmp_path), "--memory", "16 GiB"]) == 2
    assert capsys.readouterr().err == f"fed-asi: cannot write {tmp_path}: it is a folder\n"


def test_what_is_no_port_is_one_line(monkeypatch):
    monkeypatch.setattr(compose, "check_engine", lambda: None)
    for port in ("eighty", "0", "65536", "-1", ""):
        monkeypatch.setenv("FED_ASI_PORT", port)
        with pytest.raises(ConfigError, match="which is not a port number"):
            compose.up(Path("docker-compose.yml"))
