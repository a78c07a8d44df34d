"""What a fleet file says of devices, wrong in every way, is said before anything starts, all of it."""

from __future__ import annotations

from pathlib import Path

from fed_asi.fleets import fleet
from fed_asi.fleets.file import load_config
from fleet_file import GOOD, problems_of


def group(text: str) -> str:
    return GOOD + text


def test_a_preset_by_name_and_numbers_of_ones_own(tmp_path: Path) -> None:
    path = tmp_path / "a.toml"
    path.write_text(
        GOOD
        + 'device = {preset = "stm32f746", spread = 0.2}\n'
        + '[[devices]]\npartition_id = 0\nbudget = 5000\ndevice = "rp2040"\n'
    )
    devices = fleet.build(load_config(path, cpus=4))
    assert devices[1].hardware is None
    assert [devices[i].hardware.name for i in (0, 2, 4)] == ["rp2040", "stm32f746", "stm32f746"]


def test_files_are_found_beside_the_fleet_file(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("dense_per_second\n1e9\n")
    path = tmp_path / "a.toml"
    path.write_text(GOOD + 'device = {preset = "stm32f746", table = "rows.csv"}\n')
    config = load_config(path, cpus=4)
    assert config.groups[1].device.table == str(tmp_path / "rows.csv")
    assert fleet.build(config)[3].hardware.dense_per_second == 1e9


def test_all_that_is_wrong_is_said_at_once(tmp_path: Path) -> None:
    path = tmp_path / "a.toml"
    path.write_text(
        GOOD
        + 'device = "stm32f747"\n'
        + '[[groups]]\nname = "half"\ncount = 1\nbudget = 5000\ndevice = {dense_per_second = 1e9, call_seconds = 0}\n'
        + '[[groups]]\nname = "none"\ncount = 1\nbudget = 5000\ndevice = {preset = "rp2040", bytes_per_second = 0}\n'
        + '[[groups]]\nname = "lost"\ncount = 1\nbudget = 5000\ndevice = {preset = "rp2040", table = "none.csv"}\n'
    )
    said = "\n".join(problems_of(path))
    assert "groups[1].device.preset: unknown device 'stm32f747'; did you mean stm32f746" in said
    assert "groups[2].device: depthwise_per_second, " in said
    assert "groups[3].device.bytes_per_second: must be above 0" in said
    assert "groups[4].device.table: " in said
    assert "cannot be read" in said


def test_memory_alone_is_no_half_of_a_clock(tmp_path: Path) -> None:
    path = tmp_path / "a.toml"
    path.write_text(GOOD + 'device = {ram = "320 KiB", flash = "1 MiB"}\n')
    assert not fleet.build(load_config(path, cpus=4))[3].hardware.has_clock
