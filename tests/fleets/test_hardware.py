"""Presets: every shipped number has its source, and all errors in a file are reported at once."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from fed_asi.errors import ConfigError
from fed_asi.fleets import fleet, hardware
from fed_asi.fleets.file import load_config
from fed_asi.fleets.hardware import CLOCK, NUMBERS, Hardware, Preset, to_toml


@pytest.mark.parametrize("name", hardware.names())
def test_every_number_that_is_shipped_says_where_it_is_from(name: str) -> None:
    found = hardware.preset(name)
    assert found.hardware.has_clock
    assert found.hardware.ram_bytes
    assert found.hardware.flash_bytes
    fields = {"ram": "ram_bytes", "flash": "flash_bytes"}
    given = {key for key in NUMBERS if getattr(found.hardware, fields.get(key, key)) is not None}
    assert set(found.sources) == given >= {"compute_watts", "radio_watts", "idle_watts"}
    for source in found.sources.values():
        assert source.how
        assert source.is_estimate or source.url.startswith("https://")


def test_there_are_devices_from_microcontrollers_to_phones() -> None:
    assert len(hardware.names()) >= 12
    assert hardware.preset("stm32f746").hardware.ram_bytes == 320 * 1024
    assert hardware.preset("stm32f746").hardware.flash_bytes == 1024**2
    rates = [
        hardware.preset(name).hardware.dense_per_second or 0
        for name in ("mkr1000", "stm32f746", "raspberry-pi-5")
    ]
    assert rates == sorted(rates)


def test_an_unknown_name_gets_the_nearest() -> None:
    with pytest.raises(ConfigError, match="did you mean raspberry-pi-5"):
        hardware.preset("rasberry-pi-5")


def test_ones_own_by_name_and_by_file(tmp_path: Path, own_names: None) -> None:
    numbers = dict.fromkeys(CLOCK, 1e6)
    hardware.register("mine", Preset("mine", Hardware.of("mine", numbers), {}))
    assert "mine" in hardware.names()
    assert hardware.preset("mine").hardware.has_clock
    path = tmp_path / "own.toml"
    path.write_text(
        to_toml(
            'a "quoted"\nname',
            dict.fromkeys(CLOCK, (1000000.0, "measured by hand")) | {"ram": ("8 KiB", "x")},
        )
    )
    found = hardware.preset(str(path))
    assert found.hardware == Hardware.of("own", {**numbers, "ram": "8 KiB"})
    assert found.sources["ram"].is_estimate


def test_those_of_the_reference_are_devices(tmp_path: Path, own_names: None) -> None:
    page = (Path(__file__).parents[2] / "docs" / "reference" / "fleet_file.md").read_text()
    section = page.partition("### A device of your own")[2].partition("\n## ")[0]
    board, groups = re.findall(r"```toml\n(.*?)```", section, re.DOTALL)
    (program,) = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
    (tmp_path / "board.toml").write_text(board)
    (tmp_path / "fleet.toml").write_text('name = "own"\nrounds = 1\ncohort = 2\n' + groups)
    exec(program, {})
    devices = fleet.build(load_config(tmp_path / "fleet.toml", cpus=4)).groups()
    found = {name: (one.resources.ram_bytes, one.resources.flash_bytes) for name, (one, _) in devices.items()}
    assert found == {
        "of a file": (768 * 1024, 2 * 1024**2),
        "a preset with more RAM": (384 * 1024, None),
        "memory alone": (256 * 1024, 1024**2),
        "registered": (512 * 1024, None),
    }
    assert hardware.load(tmp_path / "board.toml").sources["compute_watts"].is_estimate


WRONG = """
version = 2
dense_per_second = { value = 0.0, source = "estimate", how = "x" }
call_seconds = { value = 1.0, source = "paper" }
ram = { value = "8 KB", source = "estimate" }
speed = 3
"""


def test_all_that_is_wrong_with_a_file_is_said(tmp_path: Path) -> None:
    path = tmp_path / "wrong.toml"
    path.write_text(WRONG)
    with pytest.raises(ConfigError) as caught:
        hardware.load(path)
    said = "\n".join(caught.value.problems)
    for part in (
        "version: 2",
        "dense_per_second: must be above 0",
        "no url under [sources]",
        "KB means",
        "must say how",
        "speed: must be {",
    ):
        assert part in said
    assert len(caught.value.problems) == 6


@pytest.mark.parametrize("content", [None, b"\xff\xfe", b"= 3"])
def test_a_file_that_cannot_be_read_is_one_line(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "a.toml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError, match="cannot be read"):
        hardware.load(path)


def test_what_a_clock_needs_is_named() -> None:
    found = Hardware.of("x", dict.fromkeys(CLOCK[:-1], 1.0))
    assert (found.missing, found.has_clock) == (["latency_seconds"], False)
    with pytest.raises(ConfigError, match="did you mean dense_per_second"):
        Hardware.of("x", {"dense_persecond": 1.0})
