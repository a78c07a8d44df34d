"""The CSV files: tidy, unrounded and complete."""

from __future__ import annotations

import csv
import io

import pytest

from fed_asi.studies.csv_files import cells_csv, results_csv, rounds_csv
from fed_asi.studies.findings import find
from fed_asi.studies.measures import ACCURACY, ROUNDS
from fed_asi.texts import visible
from hostile_names import HOSTILE
from made_study import FINALS, study


@pytest.fixture(scope="module")
def found(made):
    return find(made)


def read(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text, newline="")))


def test_a_row_a_variant_and_measure(found):
    rows = {(row["variant"], row["measure"]): row for row in read(results_csv(found))}
    assert len(rows) == len(FINALS) * (len(found.rows) + len(found.costs))
    better, want = rows["better", "final_accuracy"], found.rows[ACCURACY]["better"]
    assert better["setting method.name"] == "better"
    assert (better["seeds"], better["baseline"], better["difference_verdict"]) == ("3", "plain", "higher")
    for name in ("mean", "se", "low", "high"):
        assert float(better[name]) == getattr(want.estimate, name)
        assert float(better[f"difference_{name}"]) == getattr(want.difference, name)
    assert float(better["difference_corrected_p"]) == want.difference.corrected_p
    assert (rows["lone", "final_accuracy"]["low"], rows["gone", "final_accuracy"]["mean"]) == ("", "")
    cost = rows["plain", "rounds_to_target"]
    assert (cost["reached"], cost["median"], cost["mean"], cost["seeds"]) == ("1", "", "", "3")
    assert rows["better", "rounds_to_target"]["median"] == str(float(found.costs[ROUNDS]["better"].median))


def test_a_row_a_run_and_measure_and_one_for_each_gap(found):
    rows = read(cells_csv(found))
    for name in ("plain", "better", "alike", "lone"):
        mine = [row for row in rows if (row["variant"], row["measure"]) == (name, "final_accuracy")]
        assert {int(row["seed"]): float(row["value"]) for row in mine} == pytest.approx(FINALS[name])
    assert [row["gap"] for row in rows if row["variant"] == "gone"] == ["killed: out of memory"]
    never = [row for row in rows if row["measure"] == "rounds_to_target" and row["variant"] == "plain"]
    assert [row["value"] for row in never] == ["", "", "3.0"]


def test_a_row_a_round(found):
    rows = [row for row in read(rounds_csv(found)) if (row["variant"], row["seed"]) == ("lone", "0")]
    assert [float(row["accuracy"]) for row in rows] == pytest.approx([0.12, 0.3, 0.6, 0.9])
    assert [row["bytes_up"] for row in rows] == ["", "1000.0", "2000.0", "3000.0"]


def test_every_name_is_in_its_cell(tmp_path):
    found = find(study(tmp_path, {name: {0: 0.5} for name in HOSTILE}, gaps={(n, 0): "x" for n in HOSTILE}))
    assert [row["variant"] for row in read(cells_csv(found))] == [visible(name) for name in HOSTILE]
