"""Names are data, not markup: names given by a user or a device are shown unchanged everywhere.

One run whose groups, causes, notes, versions and folder have hostile names goes through every place that shows text. A
new place must be added to PLACES.
"""

from __future__ import annotations

import ast
import io
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from matplotlib.figure import Figure
from matplotlib.text import Text as Drawn
from rich.console import Console

from drawn import figures_of
from fed_asi.commands.main import main
from fed_asi.fleets.config import GroupConfig, RunConfig
from fed_asi.results import figures, page, report, table
from fed_asi.results.progress import Terminal
from fed_asi.results.schema import DeviceRoundRecord, RoundRecord
from fed_asi.results.store import RunStore
from fed_asi.results.summary import Summary, summarise
from fed_asi.studies import page as study_page
from fed_asi.studies.board import Board
from fed_asi.studies.cells import Cell
from fed_asi.studies.figures import Pictures
from fed_asi.studies.findings import Findings, find
from fed_asi.studies.one_run import Said
from fed_asi.studies.tables import NAME_CHARS, text_table
from fed_asi.texts import clipped, visible
from hostile_names import HOSTILE, RECORDED
from made_run import make
from made_study import study

ROOT = Path(__file__).parents[1]
FOLDER = "[b] $x$ \x1b[2Ja\nb"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose every text is hostile."""
    home = tmp_path_factory.mktemp("runs")
    groups = tuple(GroupConfig(name=name, count=1, budget=64 * 1024) for name in RECORDED)
    folder = make(home / "made", rounds=1, groups=groups, finish=False)
    told = [
        DeviceRoundRecord(2, number, "failed", f"cause {name}") for number, name in enumerate(RECORDED[:20])
    ]
    with RunStore.open(folder) as store:
        for name in RECORDED:
            store.note(f"note {name}")
        store.add_round(RoundRecord(2, len(told), 0, 1.0, 0.5), told)
        store.set_status("failed", cause=f"failed {RECORDED[0]}")
    return folder.rename(home / FOLDER)


def summary_of(folder: Path) -> Summary:
    with RunStore.read(folder) as store:
        return summarise(store)


def console() -> Console:
    return Console(file=io.StringIO(), width=2000, color_system=None)


def printed(run: Path) -> str:
    shown = console()
    report.show(run, shown)
    return shown.file.getvalue()


class Read(HTMLParser):
    """The text of a page, and its tags."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.texts: list[str] = []
        self.tags: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, _attributes: object) -> None:
        self.tags.add(tag)

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def paged(run: Path) -> str:
    text = page.render([summary_of(run)], [{}])
    read = Read(text)
    assert not read.tags & {"script", "a"}
    return "".join(read.texts)


def watched(_run: Path) -> str:
    shown = console()
    with Terminal(shown) as watcher:
        for name in RECORDED:
            watcher.stage(name, 1)
            watcher.note(f"note {name}")
        watcher.round_started(1, 1, 1)
        watcher.device_done(DeviceRoundRecord(1, 0, "[/failed]"))  # type: ignore[arg-type]
        watcher.round_done(RoundRecord(1, 1, 0, 1.0, 0.5))
    return shown.file.getvalue()


def watched_live(_run: Path) -> str:
    shown = Console(file=io.StringIO(), width=2000, force_terminal=True, color_system=None)
    with Terminal(shown) as watcher:
        for name in RECORDED:
            watcher.stage(name, 1)
            watcher.note("")  # which shows the bars again
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]|\r", "", shown.file.getvalue())  # how the bars move


def studied(_run: Path) -> str:
    shown = console()
    with Board(shown, lambda: RECORDED[0]) as board:
        for name in RECORDED:
            board.begun(name, f"run {name}")
            board.ended(name, f"cause {name}")
    return shown.file.getvalue()


def studied_live(_run: Path) -> str:
    shown = Console(file=io.StringIO(), width=2000, height=500, force_terminal=True, color_system=None)
    with Board(shown, lambda: RECORDED[0]) as board:
        for name in RECORDED:
            board.begun(name, name)
            board.said(name, Said(name))
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]|\r", "", shown.file.getvalue())


PLACES: dict[str, Callable[[Path], str]] = {
    "the report": printed,
    "the page": paged,
    "what a run says where there is no terminal": watched,
    "bars in a terminal": watched_live,
    "what a study says where there is no terminal": studied,
    "a study's table in a terminal": studied_live,
}


@pytest.mark.parametrize("place", PLACES)
def test_every_name_is_shown_as_it_is(run: Path, place: str) -> None:
    text = PLACES[place](run)
    assert [name for name in RECORDED if visible(name) not in text] == []
    assert all(visible(line) == line for line in text.split("\n"))


def test_a_comparison_obeys_no_name(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", str(run), str(make(run.parent / "other", rounds=1))]) == 1
    text = capsys.readouterr().out
    assert "[/edge]" in text
    assert all(visible(line) == line for line in text.split("\n"))


def test_errors_and_reports_name_a_run_without_obeying_it(run, tmp_path, capsys, no_pictures) -> None:
    assert main(["report", str(tmp_path / FOLDER)]) == 2
    said = capsys.readouterr()
    line = f"fed-asi: no run in {tmp_path}/{visible(FOLDER)}: it has no run.sqlite; fed-asi run FLEET.toml makes one\n"
    assert said.err == line
    assert main(["report", str(run), "--out", str(tmp_path / HOSTILE[0] / "page\x1b.html")]) == 0
    assert capsys.readouterr().out.endswith(r"page\x1b.html" + "\n")


def test_how_to_go_on_can_be_pasted_into_a_shell(run: Path) -> None:
    with RunStore.open(run) as store:
        store.set_status("interrupted")
    standing = summary_of(run).standing
    with RunStore.open(run) as store:
        store.set_status("failed", cause="failed")
    assert standing.endswith(r"[b] $x$ \033[2Ja\012b'")
    assert visible(standing) == standing


def texts_in(figure: Figure) -> Iterator[Drawn]:
    yield from (one for one in figure.findobj(Drawn) if isinstance(one, Drawn) and one.get_text())


def test_figures_show_every_group_and_compute_no_formula(run: Path) -> None:
    summary = summary_of(run)
    for caption, figure in figures_of(summary).items():
        texts = list(texts_in(figure))
        assert not any(one.get_parse_math() for one in texts), caption
        if caption != "Accuracy over rounds":
            shown = " ".join(one.get_text().replace("\n", "") for one in texts)
            assert [name for name in RECORDED if visible(name)[:100] not in shown] == [], caption


def test_figures_of_hostile_names_are_drawn(run: Path, recwarn: pytest.WarningsRecorder) -> None:
    summary = summary_of(run)
    few = replace(summary, groups=summary.groups[:8])
    for drawn in (figures.draw([few, few]), figures.draw([few])):
        assert all(picture.png.startswith(b"\x89PNG") for picture in drawn.values())
    assert not recwarn.list


@pytest.mark.slow
@settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    names=st.lists(
        st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=12),
        min_size=3,
        max_size=3,
        unique=True,
    )
)
def test_any_group_name_goes_through_the_whole_report(names: list[str], tmp_path_factory) -> None:
    groups = tuple(GroupConfig(name=name, count=1, budget=65536) for name in names)
    folder = make(tmp_path_factory.mktemp("any") / "made", rounds=1, groups=groups)
    text, read = printed(folder), paged(folder)
    for name in names:
        assert visible(name) in text
        assert visible(name) in read
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Figure, "savefig", lambda figure, _file, **_how: figure.draw_without_rendering())
        figures.draw([summary_of(folder)])


@pytest.fixture(scope="module")
def studied(tmp_path_factory: pytest.TempPathFactory) -> Findings:
    """A study whose every text is hostile; its long names are cut where a row would not hold them."""
    made = study(tmp_path_factory.mktemp("study"), {name: {0: 0.5} for name in RECORDED}, rounds=1)
    gaps = tuple(Cell(f"gap {name}", 1, {}, made.cells[0].folder, f"cause {name}") for name in RECORDED)
    return find(replace(made, title=RECORDED[1], cells=(*made.cells, *gaps)))


def study_printed(found: Findings) -> str:
    shown = console()
    shown.print(text_table(found))
    return shown.file.getvalue()


def study_paged(found: Findings) -> str:
    read = Read(study_page.render(found, Pictures((), (), (), (), ()), f"fed-asi {RECORDED[0]}"))
    assert not read.tags & {"script", "a", "b"}
    return "".join(read.texts)


STUDY_PLACES: dict[str, Callable[[Findings], str]] = {
    "the table of a study": study_printed,
    "the page of a study": study_paged,
}


@pytest.mark.parametrize("place", STUDY_PLACES)
def test_every_name_of_a_study_is_shown_as_it_is(studied: Findings, place: str) -> None:
    text = STUDY_PLACES[place](studied)
    assert [name for name in RECORDED if clipped(name, NAME_CHARS) not in text] == []
    assert all(visible(line) == line for line in text.split("\n"))
    if place == "the page of a study":
        assert [name for name in RECORDED if visible(f"seed 1: cause {name}") not in text] == []


def test_the_tables_titles_and_cells_are_no_markup(run: Path) -> None:
    shown = console()
    shown.print(table.table(replace(summary_of(run), name="[red]run[/red]")))
    assert "[red]run[/red]: what each budget bought" in shown.file.getvalue()


def test_records_take_every_text_as_a_value(run: Path) -> None:
    with RunStore.read(run) as store:
        assert [one.group_name for one in store.devices()] == list(RECORDED)
        assert store.notes()[1:] == [f"note {name}" for name in RECORDED]
        assert RunConfig.from_json(store.run().config) == store.config()


PRINTS = {"commands/console.py"}
SHOWS = {
    "commands/console.py",
    "results/rich_text.py",
    "results/bars.py",
    "results/table.py",
    "results/progress.py",
    "results/report.py",
    "studies/board.py",
    "studies/tables.py",
}


def test_only_the_places_above_print() -> None:
    """A print or a rich text elsewhere would be one that no test here has seen."""
    prints, rich = set(), set()
    for path in (ROOT / "fed_asi").rglob("*.py"):
        here, text = str(path.relative_to(ROOT / "fed_asi")), path.read_text()
        if not re.search(r"print|add_row|add_column|add_task|rich", text):
            continue
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print":
                prints.add(here)
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                rich |= {here} if node.func.attr in {"add_row", "add_column", "add_task"} else set()
            if isinstance(node, ast.ImportFrom) and node.module == "rich.text":
                rich.add(here)
    assert prints == PRINTS
    assert rich <= SHOWS
