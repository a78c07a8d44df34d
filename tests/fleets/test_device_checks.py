"""Every kind of error in a fleet file's devices is reported before anything starts."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest

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
    assert "groups[2].device: lacks depthwise_per_second, " in said
    assert "groups[3].device.bytes_per_second: must be above 0" in said
    assert "groups[4].device.table: " in said
    assert "cannot be read" in said


def test_a_row_of_a_table_without_a_clock_is_named(tmp_path: Path) -> None:
    rates = (
        "depthwise_per_second = 1e8, elements_per_second = 1e8, bytes_per_second = 1e8, call_seconds = 0, "
    )
    link = "down_bits_per_second = 1e6, up_bits_per_second = 1e6, latency_seconds = 0"
    (tmp_path / "rows.csv").write_text("dense_per_second,idle_watts\n1e9,1\n,1\n")
    path = tmp_path / "a.toml"
    path.write_text(GOOD + f'device = {{table = "rows.csv", {rates}{link}}}\n')
    (problem,) = problems_of(path)
    assert problem.startswith("groups[1].device.table: its device 2 lacks dense_per_second, without which")


def test_memory_alone_is_no_half_of_a_clock(tmp_path: Path) -> None:
    path = tmp_path / "a.toml"
    path.write_text(GOOD + 'device = {ram = "320 KiB", flash = "1 MiB"}\n')
    assert not fleet.build(load_config(path, cpus=4))[3].hardware.has_clock


PI = 'device = "raspberry-pi-5"\n'


@pytest.mark.parametrize(
    ("presence", "said"),
    [
        ('{kind = "trace"}', "groups[1].presence.trace: missing"),
        ('{kind = "trace", trace = "none.csv"}', "groups[1].presence.trace: "),
        ('{kind = "trace", trace = "unsorted.csv"}', "intervals must be sorted and must not overlap"),
        ('{kind = "trace", trace = "nobody.csv"}', "no device is ever present"),
        ('{kind = "daily", trace = "unsorted.csv"}', 'only for kind = "trace"; it is "daily"'),
        ('{kind = "daily", from_hour = 3.0, until_hour = 3.0}', "the device is never present"),
        ('{kind = "random", share = 0.0}', "groups[1].presence.share: must be"),
    ],
)
def test_presence_that_cannot_be(tmp_path: Path, presence: str, said: str) -> None:
    (tmp_path / "unsorted.csv").write_text("a,5,10\na,7,12\n")
    (tmp_path / "nobody.csv").write_text("device,start,end\n")
    path = tmp_path / "a.toml"
    path.write_text(GOOD + PI + f"presence = {presence}\n")
    assert said in "\n".join(problems_of(path))


def test_presence_without_any_clock_stands_still(tmp_path: Path) -> None:
    path = tmp_path / "a.toml"
    path.write_text(GOOD + 'presence = "daily"\n')
    (problem,) = problems_of(path)
    assert problem.startswith("presence: no device has a clock")


def test_a_fleet_in_which_nobody_is_ever_there(tmp_path: Path) -> None:
    empty = {i: {"active": [], "inactive": [], "finish_time": 10} for i in range(10**4)}
    (tmp_path / "trace").write_bytes(
        pickle.dumps({**empty, -1: {"active": [1], "inactive": [2], "finish_time": 10}})
    )
    path = tmp_path / "a.toml"
    one = '[[groups]]\nname = "one"\ncount = 1\nbudget = 5000\ndevice = "rp2040"\n'
    one += 'presence = {kind = "trace", trace = "trace"}\n'
    path.write_text('name = "small"\nrounds = 4\ncohort = 1\n' + one)
    (problem,) = problems_of(path)
    assert problem.startswith("presence: with this seed no device is ever present")
