"""Parsing what a device says: every column with its bounds, and a reason in plain words."""

from __future__ import annotations

import json
from dataclasses import fields
from typing import Any

import pytest
from hypothesis import given

import hostile
from fed_asi.devices import edge
from fed_asi.devices.edge import CalibrationSaid, TrainSaid, parsed, readable
from fed_asi.errors import UpdateError
from fed_asi.results.schema import DeviceRoundRecord

GOOD = {
    "version": 1,
    "stats": {
        "outcome": "trained",
        "num_examples": 3,
        "ranks": {"conv": [1, 2]},
        "loss_after": 0.5,
        "twin_cosine": -0.5,
    },
    "trained": ["a", "b"],
    "weights": {"a": 0.5},
    "notes": ["well"],
}


def with_stats(**changes: Any) -> str:
    return json.dumps({**GOOD, "stats": {**GOOD["stats"], **changes}})  # type: ignore[dict-item]


def test_a_good_reply_is_read_as_it_was_said() -> None:
    said = parsed(TrainSaid, json.dumps(GOOD))
    assert said.model_dump(exclude_unset=True, mode="json") == GOOD


PARTS = {**GOOD, "slices": {"a": {"dim": 1, "index": [0, 2, 5]}}}


def with_part(**changes: Any) -> str:
    return json.dumps({**PARTS, "slices": {"a": {**PARTS["slices"]["a"], **changes}}})


def test_parts_are_read_as_they_were_said() -> None:
    said = parsed(TrainSaid, json.dumps(PARTS))
    assert said.model_dump(exclude_unset=True, mode="json") == PARTS
    assert parsed(TrainSaid, json.dumps(GOOD)).slices == {}


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (
            with_part(index=[2, 0]),
            "slices.a: Value error, its positions are not in ascending order, each once",
        ),
        (
            with_part(index=[1, 1]),
            "slices.a: Value error, its positions are not in ascending order, each once",
        ),
        (with_part(index=[]), "slices.a.index: Tuple should have at least 1 item"),
        (with_part(index=[-1]), "slices.a.index.0: Input should be greater than or equal to 0"),
        (with_part(index=[1 << 20]), "slices.a.index.0: Input should be less than"),
        (with_part(index=["0"]), "slices.a.index.0: Input should be a valid integer"),
        (with_part(dim=2), "slices.a.dim: Input should be less than or equal to 1"),
        (with_part(dims=1), "slices.a.dims: Extra inputs are not permitted"),
        (json.dumps({**GOOD, "slices": [1]}), "slices: Input should be an object"),
    ],
)
def test_a_part_of_another_form_is_refused_with_its_reason(text: str, why: str) -> None:
    with pytest.raises(UpdateError) as raised:
        parsed(TrainSaid, text)
    assert str(raised.value).startswith(why)


@given(hostile.texts(PARTS))
def test_whatever_is_said_of_parts_is_read_or_refused(text: str) -> None:
    try:
        said = parsed(TrainSaid, text)
    except UpdateError as error:
        assert len(str(error)) <= edge.TEXT_CHARS + 3  # noqa: PT017 - most texts are read, or refused
        return
    for part in said.slices.values():
        assert list(part.index) == sorted(set(part.index))


def test_a_device_may_fill_every_column_but_the_servers() -> None:
    columns = {column.name for column in fields(DeviceRoundRecord)}
    assert set(edge.Trained.model_fields) == columns - edge.SERVERS
    assert columns > edge.SERVERS


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (with_stats(colour="red"), "stats.colour: Extra inputs are not permitted"),
        (with_stats(round=7), "stats.round: Extra inputs are not permitted"),
        (with_stats(outcome="killed", cause="x"), "stats.outcome: Input should be 'trained', "),
        (with_stats(outcome="calibrated"), "stats.outcome: Input should be 'trained', "),
        (with_stats(outcome="failed"), "stats: Value error, failed without a cause"),
        (with_stats(outcome=None), "stats.outcome: Input should be"),
        (with_stats(num_examples="3"), "stats.num_examples: Input should be a valid integer"),
        (with_stats(num_examples=True), "stats.num_examples: Input should be a valid integer"),
        (with_stats(num_examples=-1), "stats.num_examples: Input should be greater than or equal to 0"),
        (with_stats(num_examples=10**30), "stats.num_examples: Input should be less than"),
        (with_stats(loss_after=float("nan")), "stats.loss_after: Input should be a finite number"),
        (with_stats(loss_after=-1e301), "stats.loss_after: Input should be greater than"),
        (with_stats(accuracy_after=1.5), "stats.accuracy_after: Input should be less than or equal to 1"),
        (with_stats(twin_accuracy_after=-0.1), "stats.twin_accuracy_after: Input should be greater than or"),
        (with_stats(twin_cosine=1.01), "stats.twin_cosine: Input should be less than or equal to 1"),
        (
            with_stats(twin_norm_ratio=-1.0),
            "stats.twin_norm_ratio: Input should be greater than or equal to 0",
        ),
        (with_stats(twin_norm_ratio=float("inf")), "stats.twin_norm_ratio: Input should be"),
        (
            with_stats(gradient_captured=2.0),
            "stats.gradient_captured: Input should be less than or equal to 1",
        ),
        (with_stats(twin_measured_bytes=-1), "stats.twin_measured_bytes: Input should be greater than or"),
        (with_stats(ranks={"conv": [1, "2"]}), "stats.ranks.conv.1: Input should be a valid integer"),
        (with_stats(ranks={"conv": [1] * 17}), "stats.ranks.conv: List should have at most 16 items"),
        (json.dumps({**GOOD, "version": 2}), "it is of another version than 1: use the same fed_asi"),
        (json.dumps({**GOOD, "version": None}), "it is of another version than 1"),
        (json.dumps({**GOOD, "trained": ["a", "a"]}), "Value error, a tensor is named twice"),
        (json.dumps({**GOOD, "weights": {"a": 1.01}}), "weights.a: Input should be less than or equal to 1"),
        (json.dumps({**GOOD, "notes": ["x"] * 17}), "notes: Tuple should have at most 16 items"),
        ("{}", "it is of another version than 1"),
        ("[]", "Input should be an object"),
        ("no JSON", "Invalid JSON: expected"),
        ("[" * 10**6, "Invalid JSON: recursion limit exceeded"),
        ('{"version": 1' + "0" * 10**5, "Invalid JSON: number out of range"),
        ("\ud800", "Invalid JSON"),
        (7, "its JSON is int, not text"),
    ],
)
def test_what_is_no_reply_has_its_reason_in_one_line(text: object, why: str) -> None:
    with pytest.raises(UpdateError) as caught:
        parsed(TrainSaid, text)
    assert str(caught.value).startswith(why)
    assert str(caught.value).isprintable()


def test_a_pass_of_the_calibration_has_its_own_outcomes() -> None:
    text = json.dumps({**GOOD, "stats": {"outcome": "calibrated"}})
    assert parsed(CalibrationSaid, text).stats.outcome == "calibrated"
    for stats in (
        {"outcome": "trained"},
        {"outcome": "calibrated", "num_examples": 3},
        {"outcome": "failed"},
    ):
        with pytest.raises(UpdateError):
            parsed(CalibrationSaid, json.dumps({**GOOD, "stats": stats}))


def test_what_is_said_at_length_or_in_colour_is_made_readable() -> None:
    assert readable("plain words, ümlaut and 漢字") == "plain words, ümlaut and 漢字"
    assert readable("\x1b[31mred\nnext \ud800") == " [31mred next  "
    assert readable("x" * 10**6) == "x" * 500 + "..."
    said = parsed(TrainSaid, with_stats(outcome="failed", cause="a\x00b"))
    assert said.stats.cause == "a b"


@given(hostile.texts(GOOD))
def test_any_text_is_a_reply_or_a_reason(text: str) -> None:
    why = ""
    try:
        json.dumps(parsed(TrainSaid, text).model_dump(), allow_nan=False)
    except UpdateError as error:
        why = str(error)
    assert why.isprintable()
    assert len(why) < 600
