"""Which hardware a device gets: a pure function of description, seed and device."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fed_asi.errors import ConfigError
from fed_asi.fleets import hardware
from fed_asi.fleets.device_keys import HardwareConfig
from fed_asi.fleets.drawing import base_of, draw


def config(**said: Any) -> HardwareConfig:
    return HardwareConfig.model_validate(said)


def test_a_preset_is_the_same_for_all_and_own_numbers_come_first() -> None:
    pi = hardware.preset("raspberry-pi-5").hardware
    assert draw(config(preset="raspberry-pi-5"), 0, 7) == pi
    own = draw(config(preset="raspberry-pi-5", up_bits_per_second=1e6, ram="1 GiB"), 0, 7)
    assert (own.up_bits_per_second, own.ram_bytes, own.dense_per_second) == (
        1e6,
        1 << 30,
        pi.dense_per_second,
    )


def test_a_spread_is_drawn_by_seed_and_device() -> None:
    said = config(preset="stm32f746", spread=0.5)
    assert draw(said, 1, 3) == draw(said, 1, 3)
    assert len({draw(said, seed, device) for seed in (1, 2) for device in range(20)}) == 40
    base = base_of(said)
    found = [draw(said, 1, device) for device in range(400)]
    speeds = np.log([one.dense_per_second / base.dense_per_second for one in found])
    assert abs(speeds.mean()) < 0.1
    assert abs(speeds.std() - 0.5) < 0.06
    for one in found[:5]:  # a device is faster as a whole, and its link by itself
        assert one.depthwise_per_second / base.depthwise_per_second == pytest.approx(
            one.dense_per_second / base.dense_per_second
        )
        assert one.call_seconds * one.dense_per_second == pytest.approx(
            base.call_seconds * base.dense_per_second
        )
        assert (
            one.up_bits_per_second / base.up_bits_per_second != one.dense_per_second / base.dense_per_second
        )


def test_rows_of_a_table_are_drawn(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("dense_per_second\n1e9\n2e9\n3e9\n")
    said = config(preset="stm32f746", table=str(path))
    drawn = {draw(said, 0, device).dense_per_second for device in range(40)}
    assert drawn == {1e9, 2e9, 3e9}
    assert draw(said, 0, 1).flash_bytes == 1024**2


def test_a_link_drawn_around_a_mean_is_never_without_speed(tmp_path: Path) -> None:
    path = tmp_path / "speed.json"
    path.write_text(json.dumps({"a": {"down_u": 10.0, "down_sigma": 100.0, "up_u": 10.0, "up_sigma": 0.0}}))
    said = config(preset="stm32f746", table=str(path))
    found = [draw(said, 0, device) for device in range(50)]
    assert min(one.down_bits_per_second for one in found) == 0.05 * 10 * 8192
    assert {one.up_bits_per_second for one in found} == {10 * 8192}


def test_an_unknown_preset() -> None:
    with pytest.raises(ConfigError, match="unknown device"):
        draw(config(preset="abacus"), 0, 0)
