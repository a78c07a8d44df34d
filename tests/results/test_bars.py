"""Progress bars: what is happening, how much is done, what is left; removed at the end, and none without a terminal."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from fed_asi.results.bars import Bars, _Left, colours


def bars(**options: bool) -> Bars:
    return Bars(Console(file=io.StringIO(), width=80, force_terminal=True, color_system=None, **options))


def test_what_is_told_has_a_bar_until_it_is_over() -> None:
    with bars() as shown:
        shown.hear("downloading [b]a[/b]", 1, 4)
        shown.hear("features", 0, None)
        assert [(one.description, one.completed, one.total) for one in shown.tasks] == [
            ("downloading [b]a[/b]", 1, 4),
            ("features", 0, None),
        ]
        shown.hear("downloading [b]a[/b]", 4, 4)
        assert [one.description for one in shown.tasks] == ["features"]
        shown.refresh()
    assert "features" in shown.console.file.getvalue()
    assert "None" not in shown.console.file.getvalue()


@pytest.mark.parametrize("options", [{"quiet": True}, {"force_terminal": False}])
def test_where_nobody_looks_nothing_is_drawn(options: dict[str, bool]) -> None:
    console = Console(**{"file": io.StringIO(), "force_terminal": True, **options})
    with Bars(console) as shown:
        shown.hear("features", 1, 2)
        shown.refresh()
    assert console.file.getvalue() == ""


def test_a_long_text_leaves_room_for_the_numbers() -> None:
    with bars() as shown:
        number = shown.add_task("a network that nobody has trained before, " * 3, total=1000)
        shown.update(number, completed=999)
        assert shown.tasks[0].description.endswith("…")
        shown.refresh()
    assert " 999/1000 " in shown.console.file.getvalue()


def test_the_time_left_is_said_once_it_is_known() -> None:
    now = 0.0
    shown = bars()
    shown.get_time = lambda: now
    number = shown.add_task("a", total=10)
    left = _Left()
    assert left.render(shown.tasks[0]).plain == ""
    for done in range(1, 5):
        now += 0.5
        shown.update(number, completed=done)
    assert left.render(shown.tasks[0]).plain == "0:00:03 left"
    shown.update(number, completed=10)
    assert left.render(shown.tasks[0]).plain == ""


def test_no_color_takes_bold_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    console = Console(file=io.StringIO(), force_terminal=True, **colours())
    console.print("[bold red]x[/]")
    assert console.file.getvalue() == "x\n"
    monkeypatch.setenv("NO_COLOR", "")
    assert colours() == {}
