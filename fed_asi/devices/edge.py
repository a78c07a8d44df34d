"""The forms of what devices send, parsed once where it arrives: bounded, typed, of a known version.

Anything in another form raises UpdateError with the reason, and no part of it reaches the round loop. A device may fill
every column of device_rounds except the server's own, so a new column of the record is one that devices may send.
"""

from __future__ import annotations

import types
from itertools import pairwise
from typing import Annotated, Any, Literal, Self, TypeVar, Union, get_args, get_origin, get_type_hints

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    create_model,
    model_validator,
)

from fed_asi.errors import UpdateError
from fed_asi.fleets.clock import PARTS
from fed_asi.results.schema import DeviceRoundRecord

VERSION = 1


LARGEST = 2**63 - 1  # the largest integer that records hold
HUGE = 1e300  # beyond any measurement, and means of many such numbers stay finite
PLACES = 1 << 20  # along a dimension of a tensor
TEXT_CHARS, NAME_CHARS, NAMES, NOTES = 500, 200, 10_000, 16


SIMULATED = {name for part in PARTS for name in (f"{part}_seconds", f"{part}_joules")} | {
    "sim_seconds",
    "energy_joules",
}


SERVERS = {
    "round",
    "partition_id",
    "host_seconds",
    "bytes_up",
    "bytes_down",
    "staleness",
    "began_seconds",
} | SIMULATED  # columns no device fills


Says = Literal[
    "trained", "out-of-memory", "excluded", "failed", "timeout"
]  # "killed", "rejected": the server's words


def readable(text: str) -> str:
    """Return a text fit for records and terminals: printable, and at most a line or two long."""
    clean = "".join(c if c.isprintable() else " " for c in text[: TEXT_CHARS + 1])
    return clean if len(clean) <= TEXT_CHARS else f"{clean[:TEXT_CHARS]}..."


Count = Annotated[int, Field(ge=0, le=LARGEST)]
Number = Annotated[float, Field(ge=-HUGE, le=HUGE, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0.0, le=1.0, allow_inf_nan=False)]
Cosine = Annotated[float, Field(ge=-1.0, le=1.0, allow_inf_nan=False)]
Positive = Annotated[float, Field(ge=0.0, le=HUGE, allow_inf_nan=False)]
Text = Annotated[str, AfterValidator(readable)]
Place = Annotated[int, Field(ge=0, lt=PLACES)]
Name = Annotated[str, Field(min_length=1, max_length=NAME_CHARS)]


# Columns whose numbers make sense only within these bounds.
WITHIN = {
    **dict.fromkeys(("accuracy_before", "accuracy_after", "twin_accuracy_after", "gradient_captured"), Share),
    "twin_cosine": Cosine,
    "twin_norm_ratio": Positive,
}


class Form(BaseModel):
    """Base of all forms. It is strict, so that no text becomes a number, and refuses unknown keys."""

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid", hide_input_in_errors=True)


class Ended(Form):
    """How a device's job ended, as the device reports it."""

    outcome: str
    cause: Text | None = None

    @model_validator(mode="after")
    def _says_why(self) -> Self:
        if self.outcome not in {"trained", "calibrated"} and not self.cause:
            raise ValueError(f"{self.outcome} without a cause")
        return self


class Calibrated(Ended):
    """How a pass of the federated calibration ended."""

    outcome: Literal["calibrated", "failed"]


def _bounded(hint: Any, name: str) -> Any:
    """Return the type of a record's column, restricted to what may be recorded."""
    if get_origin(hint) in {Union, types.UnionType}:
        bounded = [_bounded(one, name) for one in get_args(hint)]
        return Union[tuple(bounded)]  # noqa: UP007 - made of a list
    if hint is float:
        return WITHIN.get(name, Number)
    if get_origin(hint) is dict:
        return Annotated[dict[Name, Annotated[list[Count], Field(max_length=16)]], Field(max_length=NAMES)]
    return {int: Count, str: Text}.get(hint, hint)


def _columns() -> dict[str, Any]:
    """Return the columns that a device may fill, each optional and with its bounds."""
    hints = {name: hint for name, hint in get_type_hints(DeviceRoundRecord).items() if name not in SERVERS}
    found = {name: (_bounded(hint, name), None) for name, hint in hints.items() if name != "cause"}
    return {**found, "outcome": (Says, ...)}


Trained = create_model("Trained", __base__=Ended, __doc__="How a job of training ended.", **_columns())


class SliceSaid(Form):
    """Which part of a tensor was trained: places along one of its dimensions."""

    dim: Annotated[int, Field(ge=0, le=1)]
    index: Annotated[tuple[Place, ...], Field(min_length=1, max_length=PLACES)]

    @model_validator(mode="after")
    def _ascends(self) -> Self:
        if any(left >= right for left, right in pairwise(self.index)):
            raise ValueError("its positions are not in ascending order, each once")
        return self


class Said(Form):
    """What a device's reply holds besides tensors."""

    version: Annotated[int, Field(ge=VERSION, le=VERSION)]
    stats: Ended
    trained: Annotated[tuple[Name, ...], Field(max_length=NAMES)]
    weights: Annotated[dict[Name, Share], Field(max_length=NAMES)]
    notes: Annotated[tuple[Text, ...], Field(max_length=NOTES)]

    @model_validator(mode="after")
    def _names_once(self) -> Self:
        if len(set(self.trained)) < len(self.trained):
            raise ValueError("a tensor is named twice")
        return self


class TrainSaid(Said):
    """The reply to a training job. slices: for tensors trained in part, which part."""

    stats: Trained
    slices: Annotated[dict[Name, SliceSaid], Field(max_length=NAMES)] = Field(default_factory=dict)


class CalibrationSaid(Said):
    """The reply to a pass of the federated calibration."""

    stats: Calibrated


Wanted = TypeVar("Wanted", bound=Form)


def parsed(form: type[Wanted], text: object) -> Wanted:
    """Return the form in a JSON text. Raises UpdateError, in one line, for any other text."""
    if not isinstance(text, str):
        raise UpdateError(f"its JSON is {type(text).__name__}, not text")
    try:
        return form.model_validate_json(text.encode(errors="surrogatepass"))
    except ValidationError as error:
        raise UpdateError(reason(error)) from None


def reason(error: ValidationError) -> str:
    """Return the first problem of a form in one line: where it is, and what was expected."""
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    if first["loc"] == ("version",):
        return f"it is of another version than {VERSION}: use the same fed_asi on both sides"
    where = ".".join(str(part) for part in first["loc"])
    return readable(f"{where}: {first['msg']}" if where else first["msg"])
