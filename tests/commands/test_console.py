"""How a command prints: results on stdout, everything else on stderr, lines long enough for the table."""

from __future__ import annotations

import io
import json
import sys
from argparse import Namespace
from pathlib import Path

import pytest

from fed_asi.commands import console
from fed_asi.waiting import tell


def test_exit_codes_are_what_the_documents_say():
    assert (console.OK, console.LOST, console.USER_ERROR, console.STOPPED) == (0, 1, 2, 130)


def test_what_is_said_beside_the_output_is_on_stderr(capsys):
    console.say("stopped")
    assert capsys.readouterr() == ("", "stopped\n")


@pytest.mark.parametrize(("columns", "width"), [("", 80), ("100", 100), ("7", 40), ("wide", 80)])
def test_where_there_is_no_terminal_tables_fit_eighty_columns_or_those_asked_for(monkeypatch, columns, width):
    monkeypatch.setenv("COLUMNS", columns)
    assert console.console().width == width


def test_wide_is_as_wide_as_it_takes():
    with console.speaking(Namespace(wide=True)):
        assert console.width() == console.WIDE
    assert console.width() < console.WIDE


def test_a_result_is_said_to_people_or_to_programs(capsys):
    def speak():
        console.show("a table")
        console.hint("next")
        console.answer(path=Path("a"), loss=float("nan"), sizes=(1, None), name="a\x1b[2J")
        console.say("working")
        console.complain("wrong")

    speak()
    assert capsys.readouterr() == ("a table\nnext\n", "working\nwrong\n")
    with console.speaking(Namespace(quiet=True)):
        speak()
    assert capsys.readouterr() == ("a table\n", "wrong\n")
    with console.speaking(Namespace(json=True)):
        speak()
        print("of the user's own code")
    out, err = capsys.readouterr()
    assert json.loads(out) == {
        "version": 1,
        "path": "a",
        "loss": None,
        "sizes": [1, None],
        "name": "a\x1b[2J",
    }
    assert "\x1b" not in out
    assert err == "working\nwrong\nof the user's own code\n"


def test_lines_go_on_below_in_a_terminal_and_are_whole_elsewhere(monkeypatch, capsys):
    line = "  " + "word " * 20 + "end"
    console.show(line)
    assert capsys.readouterr().out == f"{line}\n"
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    console.show(line)
    first, *others = capsys.readouterr().out.splitlines()
    assert len(first) <= 40
    assert first.startswith("  word")
    assert all(one.startswith("    word") for one in others[:-1])


@pytest.mark.parametrize("columns", [80, 200])
def test_a_terminals_own_width_counts(monkeypatch, columns):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", str(columns))
    assert console.console().width == columns


def test_what_the_terminals_encoding_lacks_is_escaped(monkeypatch):
    held = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(held, encoding="ascii"))
    console.speak_any_language()
    console.show("80.0 → 90.0 %\n日本")
    sys.stdout.flush()
    assert held.getvalue() == b"80.0 \\u2192 90.0 %\n\\u65e5\\u672c\n"


def test_what_is_shown_or_said_acts_on_no_terminal(capsys):
    console.show("a\x1b[2J\nb\r")
    console.say("a\nb\x1b")
    assert capsys.readouterr() == ("a\\x1b[2J\nb\\r\n", "a\\nb\\x1b\n")


def test_a_reader_that_has_gone_is_left_to_main():
    class Gone(io.StringIO):
        def write(self, _text: str) -> int:
            raise BrokenPipeError

    with pytest.raises(BrokenPipeError):  # rich's own console ends the program with exit code 1
        console.Terminal(file=Gone()).print("a table")


def test_a_bar_is_shown_at_once_in_a_terminal_and_nothing_elsewhere(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with console.bar("calibration [bold]on 3 images[/]") as progress:
        progress(1, 3)
    assert capsys.readouterr() == ("", "")
    monkeypatch.setenv("FORCE_COLOR", "1")
    with console.bar("calibration [bold]on 3 images[/]") as progress:
        first = capsys.readouterr()
        progress(1, 3)
        progress(3, 3)
        tell("downloading [b]x[/b], MiB", 1, 4)
        tell("downloading [b]x[/b], MiB", 4, 4)
    assert first.out == ""
    assert "3/3" in capsys.readouterr().err
    assert "calibration [bold]on 3 images[/]" in first.err


def test_a_quiet_command_shows_no_bar(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    with console.speaking(Namespace(quiet=True)), console.bar("calibration") as progress:
        progress(1, 3)
    assert capsys.readouterr() == ("", "")
