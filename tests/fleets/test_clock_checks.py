"""An impossible [clock] is reported before the start, with all other errors."""

from __future__ import annotations

from pathlib import Path

from fed_asi.fleets.file import load_config
from fleet_file import GOOD, problems_of

PRESETS = (
    GOOD.replace('budget = "64 KiB"', 'budget = "64 KiB"\ndevice = "stm32f746"')
    + 'device = "raspberry-pi-5"\n'
)


def test_keys_that_contradict_the_fleet_or_each_other(tmp_path: Path) -> None:
    path = tmp_path / "a.toml"
    path.write_text(PRESETS)
    said = problems_of(path, "clock.fit=true", 'clock.among="all"', "clock.ask=2")
    assert [one.partition(":")[0] for one in said] == ["clock.fit", "clock.among", "clock.ask"]
    (more,) = problems_of(path, "clock.ask=9")
    assert more == "clock.ask: 9 devices a round, but the groups have only 5"
    assert (
        load_config(path, ["clock.ask=5", "clock.deadline_seconds=3.5", "clock.fit=true"], cpus=4).clock.ask
        == 5
    )


def test_who_cannot_be_late_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.toml"
    path.write_text(
        GOOD
        + 'device = "raspberry-pi-5"\n[[devices]]\npartition_id = 3\nbudget = 500\ndevice = {ram = "1 KiB"}\n'
    )
    said = problems_of(path, "clock.deadline_seconds=3.0")
    assert [one.partition(":")[0] for one in said] == ["groups[0].device", "devices[0].device"]
    assert "its reply time is unknown" in said[0]


def test_what_does_not_go_with_updates_of_replies(tmp_path: Path) -> None:
    path = tmp_path / "a.toml"
    path.write_text(PRESETS)
    said = problems_of(path, "clock.at_work=9", "clock.ask=4", 'clock.among="all"')
    assert [one.partition(":")[0] for one in said] == [
        "clock.among",
        "clock.at_work",
        "clock.ask",
        "clock.among",
    ]
    assert said[1] == "clock.at_work: 9 devices at a time, but the groups have only 5"
    (alone,) = problems_of(path, "clock.staleness=0.5")
    assert alone.startswith("clock.staleness: without clock.at_work no reply is ever stale")
    assert load_config(path, ["clock.at_work=3", "clock.staleness=0.0"], cpus=4).clock.power == 0.0
    assert load_config(path, ["clock.at_work=3"], cpus=4).clock.power == 0.5
    path.write_text(GOOD)
    said = problems_of(path, "clock.at_work=3")
    assert [one.partition(":")[0] for one in said] == ["groups[0].device", "groups[1].device"]


def test_a_deadline_of_nothing_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.toml"
    path.write_text(PRESETS)
    for value in ("0", "-1.0", "inf"):
        (problem,) = problems_of(path, f"clock.deadline_seconds={value}")
        assert problem.startswith("clock.deadline_seconds: must be")
