"""`fed-asi plan --device`: what it prints and saves, and what it refuses before the long part."""

from __future__ import annotations

from pathlib import Path

import pytest

from fed_asi.commands import main as command
from fed_asi.planning.plan import Plan

TINY = ["--model", "tiny", "--weights", "none", "--resolution", "16", "--last", "2", "--micro-batch", "1"]


def main(words: list[str]) -> int:
    return command.main(["plan", *words])


@pytest.fixture(scope="module")
def common(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    return [*TINY, "--profile", str(tmp_path_factory.mktemp("timed") / "profile.json"), "--budget", "4 KiB"]


@pytest.mark.slow
@pytest.mark.computes
def test_a_step_is_told_in_seconds_and_joules(
    common: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*common, "--device", "stm32f746", "--save", str(tmp_path / "a.json")]) == 0
    text = capsys.readouterr().out
    for word in (
        "a step of 32 images on STM32F746",
        "are estimates",
        "trunk included",
        "frozen trunk",
        "together",
    ):
        assert word in text
    assert "bytes against seconds" in text
    assert Plan.load(tmp_path / "a.json").planned_bytes <= 4096
    rate = ["--objective", "captured-per-joule", "--save", str(tmp_path / "b.json")]
    assert main([*common, "--device", "stm32f746", *rate]) == 0
    assert Plan.load(tmp_path / "b.json").objective == "captured-per-joule"
    capsys.readouterr()
    assert main([*common, "--device", "stm32f746", "--max-seconds", "1e-6"]) == 2
    error = capsys.readouterr().err
    assert "max_seconds 1e-06 is below the plan that takes least" in error
    assert len(error.splitlines()) == 1


def test_without_a_device_products_are_counted(common: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*common, "--quicker"]) == 0
    text = capsys.readouterr().out
    assert "multiply-accumulates" in text
    assert "joules" not in text


def test_what_cannot_be_told_is_refused_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("fed_asi.commands.plan._calibration", lambda _arguments: pytest.fail("too late"))
    slow = tmp_path / "mine.toml"
    rates = ("dense", "depthwise", "elements", "bytes")
    keys = [f"{one}_per_second" for one in rates] + ["down_bits_per_second", "up_bits_per_second"]
    entry = '{ value = 1.0, source = "estimate", how = "a guess" }'
    lines = [f"{key} = {entry}" for key in (*keys, "call_seconds", "latency_seconds")]
    slow.write_text("\n".join(["version = 1", *lines]))
    (tmp_path / "none.toml").write_text("\n".join(["version = 1", lines[0]]))
    for words, said in (
        (["--max-seconds", "3"], "--max-seconds: needs a device whose time is known"),
        (["--objective", "captured-per-second"], "--objective captured-per-second: needs a device"),
        (["--device", "stm32f74"], "did you mean stm32f746"),
        (["--device", str(tmp_path / "none.toml")], "lacks depthwise_per_second"),
        (["--device", str(slow), "--max-joules", "3"], "lacks compute_watts"),
        (["--device", str(slow), "--objective", "captured-per-joule"], "lacks compute_watts"),
        (["--device", "stm32f746", "--max-seconds", "-1"], "--max-seconds -1: must be above 0, for one step"),
        (["--device", "stm32f746", "--max-joules", "nan"], "--max-joules nan: must be above 0, for one step"),
        (["--device", "stm32f746", "--schedule", "5=1 KiB"], "--schedule: cannot be planned with time yet"),
        (["--device", "stm32f746", "--ram", "320 KiB"], "--ram: cannot be planned with time yet"),
        (
            ["--device", "stm32f746", "--published", "--objective", "captured-per-joule"],
            "does not go with --published",
        ),
    ):
        assert main([*TINY, *words]) == 2
        error = capsys.readouterr().err
        assert said in error, words
        assert len(error.splitlines()) == 1
