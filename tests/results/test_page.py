"""The page: everything in one file, nothing from outside, whatever names contain."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from fed_asi.fleets.config import GroupConfig
from fed_asi.results.figure_tables import FigureTable
from fed_asi.results.figures import Picture
from fed_asi.results.now import Now
from fed_asi.results.page import render
from fed_asi.results.store import RunStore
from fed_asi.results.summary import Summary, summarise
from made_run import make

TABLE = FigureTable(("run <i>", "accuracy"), (("<b>", "50.0 %"),), more=1200)
FIGURES = {
    "Accuracy over rounds": Picture(b"first picture", says="what <it> says", table=TABLE, upright=b"tall"),
    "Measured bytes against budget": Picture(b"second"),
}


def summary_of(folder) -> Summary:
    with RunStore.read(folder) as store:
        return summarise(store)


@pytest.fixture(scope="module")
def summary(tmp_path_factory):
    return summary_of(make(tmp_path_factory.mktemp("runs") / "made"))


def test_page_holds_everything_itself(summary):
    html = render([summary], [FIGURES])
    assert html.count("<img") == 2
    assert 'src="data:image/svg+xml;base64,Zmlyc3QgcGljdHVyZQ=="' in html
    assert '<source media="(max-width: 800px)" srcset="data:image/svg+xml;base64,dGFsbA==">' in html
    assert not re.search(r"(src|srcset|href)=\"(?!data:)", html)
    assert not re.search(r"@import|url\(|http-equiv", html)
    assert "<script" not in html
    assert html.count('<p class="says">what &lt;it&gt; says</p>') == 1
    for expected in (
        "Resolved configuration",
        "&quot;rounds&quot;: 4",
        "torch 2.13.0",
        "64.0 KiB",
    ):
        assert expected in html


def test_the_first_screen_answers_three_questions(summary):
    html = render([summary], [FIGURES])
    first = html[html.index('<div class="answers">') : html.index('<section class="bought">')]
    for expected in (
        "Did it work?",
        "Yes: 4 of 4 rounds, every device accounted for",
        "accuracy 12.0 % → 72.5 % on the server&#x27;s test images",
        "What did each budget buy?",
        "a step saves 62.9 KiB",
        "4 devices, trained 16 of 16",
        "What was left out?",
        "4 of the 32 times a device was asked",
        "4 × excluded, as in: budget 2.0 KiB is below the smallest plan, 4.0 KiB",
    ):
        assert expected in first


def test_behind_each_figure_are_its_numbers(summary):
    html = render([summary], [FIGURES])
    assert "<details><summary>The numbers</summary>" in html
    assert "<th>run &lt;i&gt;</th>" in html
    assert "<td>&lt;b&gt;</td><td>50.0 %</td>" in html
    assert "and 1,200 more, in the run&#x27;s records" in html


def test_a_page_that_is_served_renews_itself_while_the_run_goes_on(summary):
    going = replace(summary, standing="running", run=replace(summary.run, status="running"))
    html = render([going], [FIGURES], now=Now("features <i>", 3, 10), served=True)
    assert '<meta http-equiv="refresh" content="5">' in html
    assert "It is running: 4 of 4 rounds are done" in html
    assert "<li>features &lt;i&gt;: 3 of 10</li>" in html
    assert "http-equiv" not in render([going], [FIGURES])
    assert "http-equiv" not in render([summary], [FIGURES], served=True)


def test_what_is_missing_and_who_was_left_out_have_sections_only_where_there_are_any(summary):
    html = render([replace(summary, missing=("round 3: 1 of 8 devices are unaccounted for",))], [FIGURES])
    assert "<h2>Missing</h2>" in html
    assert "1 of 8 devices are unaccounted for" in html
    assert "4 × excluded: budget 2.0 KiB is below the smallest plan, 4.0 KiB" in html
    html = render([replace(summary, causes=(), notes=())], [FIGURES])
    for title in ("Missing", "Left out, and why", "Notes"):
        assert f"<h2>{title}</h2>" not in html


def test_the_table_is_followed_by_how_to_read_it(summary):
    html = render([summary], [FIGURES])
    assert re.search(
        r"</table></div><p class=\"says\">groups have different images, so .*</p></section>", html
    )


def test_several_runs_are_shown_together_and_each(summary):
    other = replace(summary, name="other")
    html = render([summary, other], [FIGURES, FIGURES, FIGURES])
    assert html.count("<img") == 6
    assert "<title>made and other · fed_asi</title>" in html
    assert html.index("The runs together") < html.index("<h1>made</h1>") < html.index("<h1>other</h1>")


def test_names_are_escaped(tmp_path):
    folder = make(tmp_path / "x", groups=(GroupConfig(name="<b>&", count=1, budget=9000),), rounds=1)
    html = render([replace(summary_of(folder), name="<i>")], [{}])
    assert "<b>&" not in html
    assert "&lt;b&gt;&amp;" in html
    assert "<h1>&lt;i&gt;</h1>" in html


def test_a_run_without_an_evaluation_has_no_accuracy(tmp_path):
    html = render([summary_of(make(tmp_path / "x", finish=False, begun=False))], [{}])
    assert "% →" not in html
    assert "Nothing yet: no device was asked" in html
