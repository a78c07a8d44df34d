"""`fed-asi report`: tables printed again, and one page about all the runs named."""

from __future__ import annotations

from fed_asi.commands.main import main
from made_run import make


def test_tables_are_printed_and_one_page_is_written_where_it_is_wanted(tmp_path, capsys):
    runs = [make(tmp_path / "a"), make(tmp_path / "b", seed=1)]
    page = tmp_path / "page.html"
    assert main(["report", *map(str, runs), "--out", str(page)]) == 0
    out = capsys.readouterr().out
    assert "a: what each budget bought" in out
    assert "b: what each budget bought" in out
    assert out.endswith(f"report: {page}\n")
    assert "a and b" in page.read_text()


def test_without_a_place_the_page_is_in_the_run(tmp_path, capsys):
    run = make(tmp_path / "a")
    assert main(["report", str(run)]) == 0
    assert (run / "report.html").exists()
    assert f"report: {run / 'report.html'}" in capsys.readouterr().out


def test_a_run_that_failed_is_shown_all_the_same(tmp_path, capsys):
    """Its exit code is that of showing it: 0."""
    assert main(["report", str(make(tmp_path / "a", finish=False))]) == 0
    assert "stopped half-way" in capsys.readouterr().out
