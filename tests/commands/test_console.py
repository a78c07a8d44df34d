"""How a command speaks: results on stdout, all else on stderr, lines long enough for the table."""

from __future__ import annotations

import io
import sys

import pytest

from fed_asi.commands import console


def test_exit_codes_are_what_the_documents_say():
    assert (console.OK, console.LOST, console.USER_ERROR, console.STOPPED) == (0, 1, 2, 130)


def test_what_is_said_beside_the_output_is_on_stderr(capsys):
    console.say("stopped")
    assert capsys.readouterr() == ("", "stopped\n")


def test_where_there_is_no_terminal_the_whole_table_fits():
    assert console.console().width == 132


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
    assert first.out == ""
    assert "calibration [bold]on 3 images[/]" in first.err
