"""What every page has."""

from __future__ import annotations

from fed_asi.results.html_page import document, escape, listing, said


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
