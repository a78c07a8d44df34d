"""Error messages: one line per place, with what would be right."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from fed_asi.fleets import problems
from fed_asi.fleets.config import GroupConfig, RunConfig, TrainConfig


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ((), "file"),
        (("groups", 0, "budget"), "groups[0].budget"),
        (("train", "a\nb"), "train.'a\\nb'"),
    ],
)
def test_a_place_is_written_for_people(path: tuple[int | str, ...], expected: str) -> None:
    assert problems.place(path) == expected


def said(kind: Any, value: Any) -> list[str]:
    with pytest.raises(ValidationError) as caught:
        TypeAdapter(kind).validate_python(value, strict=True)
    return [problems.line(one, ["lr"]) for one in problems.by_place(caught.value.errors())]


@pytest.mark.parametrize(
    ("kind", "value", "expected"),
    [
        (int, "3", "file: must be a whole number, not '3'"),
        (list[bool], [1], "[0]: must be true or false, not 1"),
        (dict[str, int], 3, "file: must be a table, not 3"),
        (int | float, "x", "file: must be a whole number, not 'x'"),  # one line, not one a branch
        (TrainConfig, {"epochs": 0}, "epochs: must be greater than or equal to 1, not 0"),
        (TrainConfig, {"lrr": 1}, "lrr: unknown key; did you mean lr?"),
        (TrainConfig, {"int": 1}, "int: unknown key; known: lr"),  # no branch of a union, though named as one
        (TrainConfig, {"[lr": 1}, "[lr: unknown key; did you mean lr?"),
    ],
)
def test_a_wrong_value_is_one_line(kind: Any, value: Any, expected: str) -> None:
    assert said(kind, value) == [expected]


def test_keys_are_those_of_the_table_at_a_path() -> None:
    assert problems.keys_at(RunConfig, ()) == list(RunConfig.model_fields)
    assert problems.keys_at(RunConfig, ("groups", 0)) == list(GroupConfig.model_fields)
    assert problems.keys_at(RunConfig, ("groups", 0, "schedule", 1)) == ["round", "budget"]
