"""The notebook gives the outputs that are stored in it; cells tagged "varies" may differ in numbers."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
NOTEBOOK = ROOT / "docs" / "tutorial" / "first_fleet.ipynb"
MOST_BYTES = 40_000  # of the file, figures and all


def cells() -> list[dict[str, Any]]:
    found = json.loads(NOTEBOOK.read_text())["cells"]
    return [cell for cell in found if cell["cell_type"] == "code"]


def varies(cell: dict[str, Any]) -> bool:
    return "varies" in cell["metadata"].get("tags", ())


def text_of(cell: dict[str, Any]) -> str:
    """Return what a cell printed, and the value of its last line."""
    outputs = (one.get("text") or one.get("data", {}).get("text/plain", "") for one in cell["outputs"])
    return "".join("".join(one) for one in outputs)


def kinds(cell: dict[str, Any]) -> list[tuple[str, list[str]]]:
    return [(one["output_type"], sorted(one.get("data", ()))) for one in cell["outputs"]]


def test_it_is_small_and_kept_with_its_outputs_and_nothing_of_a_machine() -> None:
    text = NOTEBOOK.read_text()
    assert len(text) < MOST_BYTES
    assert any(kind == "display_data" for cell in cells() for kind, _ in kinds(cell))
    assert not re.search(r"execution_count\": \d|\"iopub|/home/|/tmp/|/root/", text)


@pytest.mark.slow
@pytest.mark.computes
@pytest.mark.filterwarnings("ignore")  # of what executes it
def test_it_runs_and_its_outputs_are_those_in_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import nbformat
    from nbclient import NotebookClient

    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    kept = cells()

    NotebookClient(
        notebook, timeout=600, coalesce_streams=True, resources={"metadata": {"path": str(tmp_path)}}
    ).execute()

    made = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [kinds(cell) for cell in made] == [kinds(cell) for cell in kept]
    same = [number for number, cell in enumerate(kept) if not varies(cell)]
    assert [text_of(made[number]) for number in same] == [text_of(kept[number]) for number in same]
    (trained,) = [text_of(cell) for cell in made if " -> " in text_of(cell)]
    first, *_, last = map(int, re.findall(r"\d+", trained))
    assert last > first
