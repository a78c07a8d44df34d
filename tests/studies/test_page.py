"""The page: everything in one file, the answer first, names unchanged."""

from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from fed_asi.studies.drawing import Picture
from fed_asi.studies.figures import Pictures
from fed_asi.studies.findings import find
from fed_asi.studies.page import render
from made_study import study


def some(name: str) -> Picture:
    return Picture(name, f"caption of {name}", "Bars.", b"<svg><defs></defs></svg>", b"")


PICTURES = Pictures((some("answer"),), (some("front"),), (some("curve"),), (some("cost"),), ())


class Read(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_data(self, data):
        self.text += f"\n{data}"


@pytest.fixture(scope="module")
def page(made):
    return Read(render(find(made), PICTURES, "fed-asi study made.toml"))


def test_the_answer_comes_first_then_figure_table_and_the_rest(page):
    order = [
        "A made-up study", "made · 5 variants · 3 seeds · 10 of 11 runs", "Compared with “plain”", "caption of answer",
        "Every variant", "Cost to 75 % accuracy", "caption of front", "caption of curve", "caption of cost",
        "Every device that was asked trained", "no run of gone, seed 0: killed", "How this was computed",
        "paired t-test", "torch 2.13.0", "fed-asi study made.toml",
    ]  # fmt: skip
    at = [
        page.text.index(one, page.text.index("Compared with") - 200 if i else 0)
        for i, one in enumerate(order)
    ]
    assert at == sorted(at)


def test_it_needs_nothing_from_elsewhere_and_runs_nothing(page):
    assert not {tag for tag, _ in page.tags} & {"script", "link", "iframe", "object", "a"}
    sources = [held["src"] for _, held in page.tags if "src" in held]
    assert len(sources) == 4
    assert all(one.startswith("data:image/svg+xml;base64,") for one in sources)
    assert "url(" not in page.text
    assert all(held.get("alt") for tag, held in page.tags if tag == "img")


def test_it_is_for_narrow_and_wide_by_day_and_by_night(page):
    assert ("meta", {"name": "viewport", "content": "width=device-width, initial-scale=1"}) in page.tags
    for part in ("prefers-color-scheme: dark", "max-width: 600px", "position: sticky"):
        assert part in page.text


def test_what_is_higher_is_marked_and_what_is_not_told_apart_is_not(page):
    marked = [held["class"] for tag, held in page.tags if tag == "td" and "class" in held]
    assert set(marked) == {"higher"}


def test_a_study_without_a_run_has_a_page(made):
    cells = tuple(replace(cell, gap="not begun") for cell in made.cells)
    text = Read(render(find(replace(made, cells=cells)), Pictures((), (), (), (), ()))).text
    assert "0 of 11 runs" in text
    assert "There is no finished run yet." in text
    assert "Do it again" not in text


def test_names_are_escaped(tmp_path):
    made = study(tmp_path, {"<b>&": {0: 0.5}, "</style>": {0: 0.6}}, baseline="<b>&")
    made = replace(made, title="<script>alert(1)</script>")
    text = render(find(made), PICTURES)
    assert not re.search(r"<(script|b)>", text)
    assert text.count("</style>") == 1
    assert "&lt;b&gt;&amp;" in text
