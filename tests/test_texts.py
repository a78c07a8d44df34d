"""A user's text as it is shown: no control character gets through, and what it said can still be read."""

from __future__ import annotations

import os
import subprocess

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from fed_asi.texts import clipped, command_line, in_yaml, visible
from hostile_names import HOSTILE


@given(st.text())
def test_what_is_shown_controls_nothing_and_a_printable_text_is_itself(text: str) -> None:
    shown = visible(text)
    assert all(c.isprintable() or c in "\u200c\u200d" or c.isspace() for c in shown)
    assert not set(shown) & set("\n\r\x1b\x85\u2028\u2029\u202e")
    shown.encode()
    if text.isprintable():
        assert shown == text


def test_what_is_not_shown_is_written_as_python_writes_it() -> None:
    assert visible("a\x1b[2J\r\n\u202eb\udc80") == r"a\x1b[2J\r\n\u202eb\udc80"
    assert visible("a\u00a0b می\u200cخواهم") == "a\u00a0b می\u200cخواهم"


def test_a_long_name_is_cut_and_says_so() -> None:
    assert clipped("short", 10) == "short"
    assert clipped("x" * 11, 10) == "x" * 9 + "…"
    assert clipped("\n" * 11, 10) == r"\n" * 4 + "\\…"


@pytest.mark.parametrize("name", [*HOSTILE, "-rf", "plain/run-1", ""])
def test_a_shell_reads_back_the_words_of_a_command_line(name: str) -> None:
    words = ["printf", "%s", f"./{name}".replace("\x00", "")]
    line = command_line(words)
    assert visible(line) == line
    done = subprocess.run(["bash", "-c", line], capture_output=True, check=True, env={"PATH": os.defpath})
    assert done.stdout == os.fsencode(words[-1])


def test_a_plain_command_line_is_plain() -> None:
    assert command_line(["fed-asi", "run", "--resume", "runs/small-2"]) == "fed-asi run --resume runs/small-2"


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_yaml_reads_back_a_scalar(text: str) -> None:
    line = in_yaml(text)
    assert visible(line) == line
    assert yaml.safe_load(f"{{a: [{line}, b]}} # end") == {"a": [text, "b"]}
