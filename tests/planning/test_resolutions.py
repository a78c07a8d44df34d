"""Which of its resolutions a device takes: by hand, with and without plans."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, cast

import pytest

from fed_asi.errors import BudgetError
from fed_asi.fleets.fleet import Device
from fed_asi.fleets.resources import Resources
from fed_asi.planning.resolutions import PlansAt, resolution_note, resolutions_of, taken_by, used_at

BIG, MIDDLE, SMALL = (Resources(budget, 16) for budget in (100, 50, 10))


@dataclass
class Needs:
    """Plans that need so many bytes. asked: how often."""

    least: int
    asked: int = 0

    def attempts(self, resources: Resources) -> Iterator[str]:
        self.asked += 1
        if (resources.budget_bytes or 0) < self.least:
            raise BudgetError(f"{resources.budget_bytes} is below {self.least}")
        yield "a plan"


def plans(**least: int) -> dict[int, Needs]:
    return {int(pixels.removeprefix("at")): Needs(size) for pixels, size in least.items()}


def taken(devices: list[Device], needs: dict[int, Needs]) -> tuple[int, ...]:
    return taken_by(devices, 64, cast(PlansAt, needs))


def device(*phases: Resources, resolutions: tuple[int, ...] = (), partition_id: int = 0) -> Device:
    later = tuple(enumerate(phases[1:], start=2))
    return Device(partition_id, "a", phases[0], later, resolutions=resolutions)


@pytest.mark.parametrize(
    ("phases", "expected"),
    [
        ((BIG,), 64),
        ((MIDDLE,), 32),
        ((SMALL,), 16),
        ((Resources(1, 16),), 16),  # none fits: the error is that of the smallest
        ((BIG, MIDDLE), 32),  # one for the whole run, whose factors it keeps
        ((BIG, Resources(1, 16)), 64),  # nothing fits then, and it is left out of those rounds
        ((MIDDLE, Resources(1, 16), SMALL), 16),
    ],
)
def test_it_is_the_largest_at_which_all_phases_or_most_have_a_plan(
    phases: tuple[Resources, ...], expected: int
) -> None:
    needs = plans(at64=60, at32=40, at16=5)
    assert taken([device(*phases, resolutions=(64, 32, 16))], needs) == (expected,)


def test_one_that_has_no_choice_is_planned_for_nothing() -> None:
    needs = plans(at64=60, at32=40)
    devices = [device(SMALL), device(SMALL, resolutions=(32,))]
    assert taken(devices, needs) == (64, 32)
    assert [one.asked for one in needs.values()] == [0, 0]


def test_devices_alike_are_looked_at_once() -> None:
    needs = plans(at64=60, at32=40)
    devices = [device(MIDDLE, resolutions=(64, 32), partition_id=i) for i in range(100)]
    assert taken(devices, needs) == (32,) * 100
    assert [one.asked for one in needs.values()] == [1, 1]


def test_what_devices_have_by_resolution() -> None:
    devices = [device(BIG, SMALL), device(BIG), device(MIDDLE, resolutions=(32,))]
    assert used_at(devices, (64, 64, 32)) == {64: {BIG, SMALL}, 32: {MIDDLE}}
    assert resolutions_of(devices, 64) == (64, 32)
    assert resolutions_of([], 8) == (8,)


def test_a_run_says_who_sees_what() -> None:
    devices = [device(BIG), *(device(BIG, resolutions=(64, 32)) for _ in range(3))]
    said: dict[str, Any] = {"own": 64, "taken": (64, 64, 32, 32)}
    assert resolution_note(devices, **said) == (
        "resolution: of the devices that name theirs 1 at 64 x 64 and 2 at 32 x 32 pixels, the largest of theirs at "
        "which they have a plan; the server judges at 64 x 64"
    )
    assert resolution_note(devices[:1], 64, (64,)) == ""
