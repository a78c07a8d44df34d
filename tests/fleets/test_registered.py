"""A table whose further keys are settings of what one key names; test_sharding.py shows this for schemes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import pytest
from pydantic import ConfigDict, Field

from fed_asi.errors import ConfigError
from fed_asi.fleets.registered import Registered, given_keys
from fed_asi.fleets.section import Section


@dataclass(frozen=True)
class Soup:
    """What "soup" stands for."""

    salt: Annotated[float, Field(ge=0)]
    spoons: int = 1

    def __post_init__(self) -> None:
        if self.salt > self.spoons:
            raise ConfigError("more salt than spoons")


class Menu(Section):
    """A table with a key that names a class."""

    model_config = ConfigDict(extra="allow")
    dish: str = "soup"
    guests: int = 2


MENU = Registered("menu", "dish", lambda: ["soup"], lambda _name: Soup)


def test_keys_are_the_fields_of_what_is_named() -> None:
    section = Menu.model_validate({"salt": 1, "spoons": 3})
    assert MENU.make(section) == Soup(1.0, 3)
    assert given_keys(section) == {"dish": "soup", "guests": 2, "salt": 1, "spoons": 3}


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ({"dish": "stew"}, ["menu.dish: unknown 'stew'; known: soup"]),
        ({}, ["menu.salt: missing"]),
        ({"salt": -1}, ["menu.salt: must be greater than or equal to 0, not -1"]),
        ({"salt": float("nan")}, ["menu.salt: must be a finite number, not nan"]),
        ({"salt": 0, "spoon": 1}, ["menu.spoon: unknown key; did you mean spoons?"]),
        ({"salt": "much", "spoons": 1.5}, None),
        ({"salt": 2}, ["menu: more salt than spoons"]),
    ],
)
def test_every_problem_is_a_line(said: dict[str, object], expected: list[str] | None) -> None:
    found, problems = MENU.read(Menu.model_construct(**{"dish": "soup", **said}))
    assert found is None
    if expected is None:
        assert [line.split(":")[0] for line in problems] == ["menu.salt", "menu.spoons"]
    else:
        assert problems == expected
    with pytest.raises(ConfigError):
        MENU.make(Menu.model_construct(**{"dish": "soup", **said}))
