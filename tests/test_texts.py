"""A user's text as shown: no control character gets through, and the text can still be read."""

from __future__ import annotations

import os
import re
import subprocess

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from fed_asi.texts import clipped, command_line, in_latex, in_markdown, in_yaml, visible
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


def read_markdown(text: str) -> list[str]:
    """The cells of a table's one row, as a reader of Markdown has them; a cell must be plain text."""
    page = MarkdownIt("commonmark").enable("table").parse(f"| a | b |\n|---|---|\n{text}\n")
    cells = [one for one in page if one.type == "inline"][2:]
    kinds = {child.type for cell in cells for child in cell.children}
    assert kinds <= {"text", "text_special"}, kinds
    return ["".join(child.content for child in cell.children) for cell in cells]


@pytest.mark.parametrize("name", HOSTILE)
def test_markdown_shows_a_hostile_name_in_a_cell(name: str) -> None:
    assert read_markdown(f"| {in_markdown(name)} | 1 |") == [visible(name).strip(), "1"]


@given(st.text())
def test_markdown_shows_any_text(text: str) -> None:
    assert read_markdown(f"| {in_markdown(f'a{text}b')} | 1 |") == [visible(f"a{text}b"), "1"]
    assert not re.search(r":[a-z]+:|https?://", in_markdown(text))  # emoji and links of GitHub's own


def read_latex(text: str) -> str:
    """What LaTeX would set: its control words and groups read back, by a second way than that which wrote them."""
    words = {
        r"\textbackslash{}": "\\", r"\textasciitilde{}": "~", r"\textasciicircum{}": "^", r"\textasciigrave{}": "`",
        r"\textless{}": "<", r"\textgreater{}": ">", r"\textbar{}": "|", r"\textquotesingle{}": "'",
        r"\textquotedbl{}": '"', r"\ldots{}": "\u2026", "$-$": "\u2212", r"$\times$": "\u00d7",
    }  # fmt: skip
    found = ""
    while text:
        part = next((one for one in words if text.startswith(one)), None)
        if part is not None:
            found += words[part]
        elif re.match(r"\\[&%$#_{}]", text):
            part, found = text[:2], found + text[1]
        elif re.match(r"\{[-\[\]]\}", text):
            part, found = text[:3], found + text[1]
        else:
            assert text[0] not in "\\&%$#_{}~^[]<>|`'\"-", text
            part, found = text[0], found + text[0]
        text = text[len(part) :]
    return found


@given(st.text())
def test_latex_sets_any_text(text: str) -> None:
    assert read_latex(in_latex(text)) == visible(text)


@pytest.mark.parametrize("name", HOSTILE)
def test_latex_sets_a_hostile_name(name: str) -> None:
    assert read_latex(in_latex(name)) == visible(name)
