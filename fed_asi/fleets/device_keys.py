"""The keys by which a group or a device describes its hardware besides memory, and when it is present."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, create_model

from fed_asi.fleets.hardware import NUMBERS, problem_of
from fed_asi.fleets.pace import PaceKeys
from fed_asi.fleets.resolution import ResolutionKeys
from fed_asi.fleets.section import Section
from fed_asi.units import parse_bytes

Hour = Annotated[float, Field(ge=0, le=24)]


def _number(key: str) -> Any:
    """Return the type of one of a device's numbers."""

    def checked(value: Any) -> Any:
        wrong = problem_of(key, value) if value is not None else None
        if wrong is not None:
            raise ValueError(wrong.removeprefix(f"{key}: "))
        return parse_bytes(value) if key in {"ram", "flash"} and value is not None else value

    return Annotated[float | int | None, BeforeValidator(checked)]


_NUMBERS: dict[str, Any] = {key: (_number(key), None) for key in NUMBERS}
_Numbers = create_model("_Numbers", __base__=Section, **_NUMBERS)


class HardwareConfig(_Numbers):
    """A device's hardware: a preset, numbers of its own, and how devices of a group differ.

    preset: a name of fleets/hardware.py, or a TOML file. table: a file of which each device draws a row, seeded.
    spread: standard deviation of the logarithm of speed, and likewise for the link, drawn by seed; 0: all alike.
    """

    preset: str | None = None
    table: str | None = None
    spread: Annotated[float, Field(ge=0, le=3)] = 0.0

    @property
    def numbers(self) -> dict[str, Any]:
        """The numbers that are given, by key."""
        return {key: value for key in NUMBERS if (value := getattr(self, key)) is not None}


class PresenceConfig(Section):
    """When a device is present.

    kind: "always"; "random": in each period with chance `share`, independently; "daily": from one hour to another,
    local time, on a share of days; "trace": in the intervals of a file, of which each device draws one row by seed.
    """

    kind: Literal["always", "random", "daily", "trace"] = "always"
    share: Annotated[float, Field(ge=1e-4, le=1)] = 1.0  # with less, no next time to come would be found
    period_seconds: Annotated[float, Field(ge=1, le=1e9)] = 3600.0  # "random"
    from_hour: Hour = 22.0  # "daily", in local time
    until_hour: Hour = 6.0
    zones: Annotated[
        tuple[Annotated[float, Field(ge=-12, le=14)], ...], Field(strict=False, min_length=1)
    ] = (0.0,)
    trace: str | None = None


def _named(key: str) -> BeforeValidator:
    """Return a validator that lets a text stand for the table with that text as its first key."""
    return BeforeValidator(lambda value: {key: value} if isinstance(value, str) else value)


class DeviceKeys(ResolutionKeys, PaceKeys):
    """The keys of a group and of a single device; a device's missing keys are its group's."""

    device: Annotated[HardwareConfig | None, _named("preset")] = None
    presence: Annotated[PresenceConfig | None, _named("kind")] = None
