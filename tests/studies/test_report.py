"""The report on disk: every file exists and is of its kind."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from dataclasses import replace

import pytest

from fed_asi.errors import RunError
from fed_asi.studies import report
from fed_asi.studies.drawing import Picture
from fed_asi.studies.figures import Pictures
from fed_asi.studies.report import write_report

SVG = b'<svg xmlns="http://www.w3.org/2000/svg"><defs></defs></svg>'


@pytest.fixture(autouse=True)
def _one_picture(monkeypatch):
    one = Picture("front", "Front", "", SVG, b"\x89PNG")
    monkeypatch.setattr(report, "draw", lambda _found: Pictures((one,), (), (), (), ()))


def test_every_file_is_written_and_named_the_page_first(made, tmp_path):
    written = write_report(made, tmp_path / "new" / "folder")
    assert [path.name for path in written] == [
        "index.html", "results.md", "results.csv", "cells.csv", "rounds.csv", "results.tex", "front.svg", "front.png",
    ]  # fmt: skip
    assert all(path.stat().st_size for path in written)
    assert ET.fromstring(written[-2].read_bytes()).tag.endswith("svg")
    assert "<!DOCTYPE html>" in written[0].read_text()
    again = write_report(made, tmp_path / "again")
    assert [path.read_bytes() for path in again] == [path.read_bytes() for path in written]


def test_documents_get_all_but_the_page(made, tmp_path):
    written = write_report(made, tmp_path / "study", documents=tmp_path / "docs")
    theirs = [path for path in written if path.parent.name == "docs"]
    assert [path.name for path in theirs] == [path.name for path in written[1 : len(theirs) + 1]]
    assert sorted(path.name for path in (tmp_path / "docs").iterdir()) == sorted(p.name for p in theirs)
    assert theirs[0].read_bytes() == (tmp_path / "study" / "results.md").read_bytes()


def test_what_cannot_be_written_or_compared_is_one_line(made, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="is not a folder"):
        write_report(made, tmp_path / "file")
    with pytest.raises(RunError, match="is not a folder"):
        write_report(made, tmp_path / "new", documents=tmp_path / "file")
    with pytest.raises(RunError, match="none of its variants"):
        write_report(replace(made, baseline="nobody"), tmp_path)
