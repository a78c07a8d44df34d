"""What all pages have in common."""

from __future__ import annotations

from fed_asi.results.html_page import document, escape, folded, listing, picture_src, rows, said


def test_a_page_is_whole_and_its_title_is_a_text():
    page = document("<b> & [x]\n", ["<h1>x</h1>"], "em { }")
    assert page.startswith("<!DOCTYPE html>")
    assert "<title>&lt;b&gt; &amp; [x]\\n · fed_asi</title>" in page
    assert 'name="viewport"' in page
    assert "em { }</style>" in page
    assert "<main>\n<h1>x</h1></main>" in page


def test_texts_are_escaped_and_empty_ones_leave_nothing():
    assert escape("<i>\x1b") == "&lt;i&gt;\\x1b"
    assert listing("Gaps", ["<i>"]) == "<section><h2>Gaps</h2><ul><li>&lt;i&gt;</li></ul></section>\n"
    assert (listing("Gaps", []), said("")) == ("", "")
    assert said("<i>") == '<p class="says">&lt;i&gt;</p>'


def test_a_page_is_light_by_day_and_dark_by_night_and_asks_for_nothing():
    page = document("x", [], "")
    assert "@media (prefers-color-scheme: dark)" in page
    assert "color-scheme: light dark" in page
    assert "http" not in page
    assert 'http-equiv="refresh" content="5"' in document("x", [], "", renew_seconds=5)


def test_tables_pictures_and_what_is_folded_hold_texts_as_they_are():
    assert "<th>&lt;i&gt;</th>" in rows(["<i>"], [])
    assert "<tr><td>&lt;b&gt;</td><td>2</td></tr>" in rows(["a", "b"], [["<b>", "2"]])
    assert folded("<i>", "<p>x</p>") == "<details><summary>&lt;i&gt;</summary><p>x</p></details>"
    assert picture_src(b"x") == "data:image/svg+xml;base64,eA=="
