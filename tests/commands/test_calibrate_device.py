"""`fed-asi calibrate-device`: measurements become a device that a fleet file can name."""

from __future__ import annotations

from pathlib import Path

import pytest

from fed_asi.commands import calibrate_device
from fed_asi.commands.main import main
from fed_asi.fleets.hardware import load
from made_rates import steps


def test_a_machine_becomes_a_device(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(calibrate_device, "measure", steps)
    path = tmp_path / "mine.toml"
    assert main(["calibrate-device", "--out", str(path), "--link", "1e6,2e5,0.1"]) == 0
    found = load(path).hardware
    assert found.has_clock
    assert (found.down_bits_per_second, found.up_bits_per_second, found.latency_seconds) == (1e6, 2e5, 0.1)
    assert found.call_seconds == pytest.approx(2e-5, rel=0.2)
    assert "median error" in capsys.readouterr().out


@pytest.mark.parametrize("link", ["fast", "1,2", "0,1,1", "1,-1,1"])
def test_a_link_that_is_none_is_refused_before_the_minute(
    link: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(calibrate_device, "measure", lambda *_a: pytest.fail("it measured"))
    assert main(["calibrate-device", "--out", str(tmp_path / "a.toml"), f"--link={link}"]) == 2
    assert "--link" in capsys.readouterr().err


def test_the_networks_it_is_fitted_on_are_none_that_it_is_tried_on() -> None:
    text = (Path(__file__).parents[2] / "experiments" / "benchmarks" / "clock.py").read_text()
    assert not [name for name in calibrate_device.NETWORKS if f'"{name}"' in text]
