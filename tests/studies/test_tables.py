"""The tables: the content of each column and row, and which of them appear."""

from __future__ import annotations

import io
from dataclasses import replace

import pytest
from rich.console import Console

from fed_asi.studies.findings import find
from fed_asi.studies.statistics import Verdict
from fed_asi.studies.tables import Entry, gap_lines, headline, tables, text_table
from made_study import add_column, change, study


@pytest.fixture(scope="module")
def found(made):
    return find(made)


def column(table, heading):
    at = table.headings.index(heading)
    return {row[0].text: row[at] for row in table.rows}


def test_the_first_table_answers_the_question(found):
    table = headline(found)
    assert table.headings == (
        "variant", "accuracy, %", "against baseline, points", "worst class, %", "against baseline, points",
        "took part, %", "saved bytes", "bytes up", "seeds",
    )  # fmt: skip
    assert [row[0] for row in table.rows][:2] == [Entry("plain", "baseline"), Entry("better")]
    accuracy, against = column(table, "accuracy, %"), column(table, "against baseline, points")
    assert accuracy["plain"] == Entry("73.0", "64.0 to 82.0")
    assert accuracy["lone"] == Entry("90.0", "1 seed: no interval")
    assert accuracy["gone"] == Entry("-")
    assert against["better"] == Entry("+10.0", "+7.5 to +12.5, higher", Verdict.HIGHER)
    assert against["alike"].under == "−5.5 to +4.8, not told apart"
    assert against["lone"] == Entry("+20.0", "too few seeds, 1 pair", Verdict.FEW)
    assert against["gone"] == Entry("", "no common seed")
    assert against["plain"] == Entry("-")
    assert column(table, "saved bytes")["plain"] == Entry("63.0 KiB")
    assert column(table, "seeds")["gone"] == Entry("0 of 1")


def test_costs_say_who_never_got_there(found):
    (costs,) = [one for one in tables(found) if one.title == "Cost to 75 % accuracy"]
    rounds = column(costs, "rounds")
    assert rounds["better"] == Entry("3")
    assert rounds["plain"] == Entry("not reached", "1 of 3 reached it")
    assert rounds["gone"] == Entry("-")
    costs = next(one for one in tables(find(replace(found.study, target=0.99))) if "99 %" in one.title)
    assert column(costs, "bytes up")["plain"] == Entry("not reached", "in 3 seeds")
    costs = next(one for one in tables(find(replace(found.study, target=0.71))) if "71 %" in one.title)
    assert column(costs, "rounds")["alike"] == Entry("3", "median, 2 of 3 reached it")


def test_costs_are_held_against_the_baseline_where_every_run_of_both_got_there(found):
    (costs,) = [one for one in tables(find(replace(found.study, target=0.6))) if one.title.startswith("Cost")]
    rounds, up = column(costs, "rounds"), column(costs, "bytes up")
    assert rounds["plain"] == Entry("3")
    assert rounds["better"] == Entry("3", "0 against baseline, equal in every seed")
    assert up["lone"] == Entry("2.0 KiB", "1 seed: no interval; −1000 B against baseline, too few seeds")


def test_gaps_are_a_line_a_variant_and_cause(made):
    cells = tuple(replace(cell, gap="not begun" if cell.seed < 2 else "killed") for cell in made.cells)
    assert gap_lines(find(replace(made, cells=cells)))[:3] == [
        "no run of plain, seeds 0, 1: not begun",
        "no run of plain, seed 2: killed",
        "no run of better, seeds 0, 1: not begun",
    ]


def test_there_are_tables_for_what_there_is(found, tmp_path):
    titles = [one.title for one in tables(found)]
    assert titles == ["Every variant", "Cost to 75 % accuracy", "Other measures"]
    made = study(tmp_path, {"a": {0: 0.5}})
    assert "against baseline, points" not in headline(find(made)).headings
    folder = made.cells[0].folder
    add_column(folder, "device_rounds", "ram_bytes", "327680")
    change(folder, "INSERT INTO group_rounds VALUES (1, 'edge', 2, 40, 1.0, 0.25, 0.25, 0.1)")
    later = find(made)
    assert column(headline(later), "RAM")["a"] == Entry("320.0 KiB", "1 seed: no interval")
    (shared,) = [one for one in tables(later) if one.title.startswith("The last shared model")]
    assert column(shared, "edge, %")["a"] == Entry("25.0", "1 seed: no interval")


def test_a_terminal_gets_what_matters_most_and_the_answer(found):
    shown = Console(file=io.StringIO(), width=160, color_system=None)
    shown.print(text_table(found))
    text = shown.file.getvalue()
    assert "73.0 (64.0 to 82.0)" in text
    assert "+10.0 (+7.5 to +12.5, higher)" in text
    assert "Compared with “plain”" in text
    assert "took part" not in text
