"""What the terminal shows of a run, and the page that is written beside its records."""

from __future__ import annotations

import io
import re

import pytest
from rich.console import Console

from fed_asi.errors import RunError
from fed_asi.results import report
from made_run import make


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return make(tmp_path_factory.mktemp("runs") / "made")


def test_the_table_is_printed_and_its_summary_returned(run):
    console = Console(width=140, file=io.StringIO())
    summary = report.show(run, console)
    assert summary.name == "made"
    text = console.file.getvalue()
    assert "what each budget bought" in text
    assert "papers' count" in text


def test_a_page_and_its_figures_are_written_beside_the_records(run):
    page = report.write([run])
    html = page.read_text()
    assert page == run / "report.html"
    assert html.count("<img") == 3
    assert not re.search(r"(src|href)=\"(?!data:)", html)
    assert sorted(path.name for path in run.glob("*.png")) == [
        "accuracy-over-rounds.png",
        "measured-bytes-against-budget.png",
        "what-the-bytes-capture-and-what-devices-gain.png",
    ]


def test_several_runs_are_one_page_wherever_it_is_wanted(run, tmp_path, no_pictures):
    other = make(tmp_path / "other", seed=1)
    html = report.write([run, other], tmp_path / "new" / "both.html").read_text()
    assert html.count("<img") == 1 + 1 + 1  # a figure of both, and one of each
    assert "made and other" in html


def test_a_run_that_has_not_begun_has_a_page_too(tmp_path, no_pictures):
    folder = make(tmp_path / "x", rounds=3, finish=False, begun=False)
    html = report.write([folder]).read_text()
    assert "stopped half-way" in html
    assert "3 of 3 rounds did not happen" in html


def test_a_page_that_cannot_be_written_is_one_line(run, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(RunError, match=r"cannot write .*page\.html: "):
        report.write([run], tmp_path / "file" / "page.html")


def test_what_is_no_run_is_refused(tmp_path):
    with pytest.raises(RunError, match="no run in"):
        report.write([tmp_path])
