"""A method's text is read as Python reads its literals, without Python's own parser."""

from __future__ import annotations

import ast
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fed_asi.errors import ConfigError
from fed_asi.methods import ASI, Method
from fed_asi.methods.literals import arguments

ONES = st.one_of(
    st.integers(-(10**20), 10**20),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=8),
    st.sampled_from([True, False, None, "'\"", "\\n\n\x00", "(a=1, b", "\ud800", "é\U0001f600\u2028"]),
)
VALUES = st.recursive(
    ONES, lambda inner: st.lists(inner, max_size=3) | st.lists(inner, max_size=3).map(tuple), max_leaves=6
)


@given(values=st.dictionaries(st.sampled_from(["ranks", "bits", "größe", "_x1"]), VALUES, max_size=3))
def test_what_python_writes_is_read_back(values: dict[str, Any]) -> None:
    text = f"name({', '.join(f'{key}={value!r}' for key, value in values.items())})"

    name, found = arguments(text)

    assert (name, repr(found)) == ("name", repr(values))  # repr: True is not 1, and -0.0 not 0.0


@pytest.mark.parametrize(
    "inside",
    [
        "a=(1)", "a=(1,)", "a=()", "a=[]", "a=((1, 2), [3])", "a = 1 , b=2,", " ", "a=1e3", "a=-.5", "a=1.", "a=1_000",
        "a=+3", "a='\\x41'", "a='\\u00e9'", 'a="it\'s"', "a=(1,\n 2)",
    ],
)  # fmt: skip
def test_forms_that_people_write(inside: str) -> None:
    call = ast.parse(f"f({inside.strip()})", mode="eval").body
    assert isinstance(call, ast.Call)
    expected = {str(k.arg): ast.literal_eval(k.value) for k in call.keywords}

    assert repr(arguments(f"f({inside})")[1]) == repr(expected)


@pytest.mark.parametrize(
    "text",
    [
        "f(", "f(a", "f(a=", "f(a=1", "f(a=1,,)", "f(,)", "f(a=1 b=2)", "f(a=1, a=2)", "f(1)", "f(**a)", "f(a=b)",
        "f(a=1))", "f(a=1) x", "f(a=(1 2))", "f(a=(1,,))", "f(a=[1)", "f(a=1x)", "f(a='x)", "f(a=--1)", "f(a=1__0)",
        "f(a=open('x'))", "f(a={1})", "f(a='\\q')", "f(a='\\U99999999')", "f(a=" + "(" * 5000, "f(a=2²)",
    ],
)  # fmt: skip
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="is not understood"):
        arguments(text)


def test_pythons_own_parser_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_args: object, **_kwargs: object) -> None:
        raise AssertionError("Python 3.11.7's parser fails where another thread parses too")

    monkeypatch.setattr("builtins.compile", refuse)
    monkeypatch.setattr("builtins.eval", refuse)

    assert Method.parse("asi(ranks=(8, 8, 3, 3), bits=8)") == ASI((8, 8, 3, 3), bits=8)
