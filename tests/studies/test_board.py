"""What a study shows: plain lines without a terminal, a table with one, names unchanged."""

from __future__ import annotations

import io

from rich.console import Console

from fed_asi.studies.board import Board
from fed_asi.studies.one_run import Said


def shown(terminal: bool) -> str:
    out = io.StringIO()
    console = Console(file=out, width=100, force_terminal=terminal, legacy_windows=False)
    with Board(console, lambda: "1 of 2 runs done") as board:
        board.begun("a", "[b]as\x1bi[/b], seed 0")
        board.begun("b", "head, seed 0")
        board.said("a", Said("features of 64 images"))
        board.said("a", Said("accuracy 81.2 %", 2, 5))
        if terminal:
            board._live.refresh()
        board.ended("a", None)
        board.ended("b", "no memory")
    return out.getvalue()


def test_without_a_terminal_every_end_is_a_line() -> None:
    assert shown(terminal=False).splitlines() == [
        r"[b]as\x1bi[/b], seed 0: done, accuracy 81.2 %, 0 s",
        "  1 of 2 runs done",
        "head, seed 0: gap: no memory",
        "  1 of 2 runs done",
    ]


def test_in_a_terminal_the_runs_at_work_are_a_table() -> None:
    text = shown(terminal=True)
    assert "head, seed 0" in text.split("gap:")[0]
    assert "2/5" in text
    assert "1 of 2 runs done" in text
    assert "\x1bi" not in text
    assert text.rstrip().endswith("1 of 2 runs done")
