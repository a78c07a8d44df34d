"""The public names: all exist, and none loads more than it needs."""

from __future__ import annotations

import inspect
import re
from importlib import import_module
from pathlib import Path

import pytest

import fed_asi

PAGE = (Path(__file__).parents[1] / "docs" / "reference" / "api.md").read_text()
NAMED = re.findall(r"^\* `(fed_asi[\w.]*)`", PAGE, flags=re.M)


@pytest.mark.parametrize("name", dir(fed_asi))
def test_every_public_name_is_there(name: str) -> None:
    assert getattr(fed_asi, name) is not None


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'plann'"):
        _ = fed_asi.plann


@pytest.mark.parametrize("name", NAMED)
def test_every_documented_name_is_there_and_says_what_it_is(name: str) -> None:
    module, _, last = name.rpartition(".")
    found = getattr(import_module(module), last)
    assert inspect.isclass(found) or inspect.isfunction(found)
    own = vars(found).items() if inspect.isclass(found) else ()
    assert inspect.getdoc(found)
    methods = [one for key, one in own if inspect.isfunction(one) and not key.startswith("_")]
    assert [one for one in methods if not inspect.getdoc(one)] == []


def test_every_public_name_is_documented() -> None:
    public = {f"fed_asi.{name}" for name in dir(fed_asi)} - {"fed_asi.__version__"}
    modules = {"fed_asi.data", "fed_asi.errors", "fed_asi.models"}
    assert public - modules <= set(NAMED)
    assert len(NAMED) == len(set(NAMED))
