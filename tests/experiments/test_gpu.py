"""The script that measures a GPU: its tiny mode, on the CPU, runs every part and finds what fails."""

from __future__ import annotations

import json
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "experiments" / "benchmarks" / "gpu.py"
pytestmark = pytest.mark.slow


def main(monkeypatch: pytest.MonkeyPatch, *words: str, **changes: Any) -> int:
    """Return the script's exit code; changes: of its own constants."""
    monkeypatch.syspath_prepend(str(SCRIPT.parent))
    monkeypatch.setattr(sys, "argv", [str(SCRIPT), *words])
    script = runpy.run_path(str(SCRIPT))
    script["main"].__globals__.update(changes)
    code: int = script["main"]()
    return code


def test_its_tiny_mode_does_every_part(tmp_path: Path) -> None:
    words = ["--device", "cpu", "--tiny", "--json", str(tmp_path / "rows.json")]
    done = subprocess.run(
        [sys.executable, str(SCRIPT), *words, "--markdown", str(tmp_path / "page.md")],
        capture_output=True, text=True, check=False, cwd=ROOT,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("all of it holds\n")
    rows = json.loads((tmp_path / "rows.json").read_text())
    assert list(rows) == ["about", "gradients", "waits", "peak", "steps", "micro", "round"]
    assert all(rows.values())
    assert all(row["holds"] for part in ("gradients", "waits", "round") for row in rows[part])
    page = (tmp_path / "page.md").read_text()
    assert [line for line in page.splitlines() if line.startswith("## ")] == [f"## {part}" for part in rows]


def test_a_gradient_that_is_off_is_exit_code_1(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    words = ("--device", "cpu", "--tiny", "--parts", "gradients")
    assert main(monkeypatch, *words, TOLERANCE=0.0, ROUNDED=0.0) == 1
    assert capsys.readouterr().out.endswith("11 that do not hold\n")


def test_a_device_that_is_not_here_is_one_line(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(SystemExit) as ended:
        main(monkeypatch)
    assert ended.value.code == 2
    assert (
        '--device "cuda", but there is no GPU on this machine: ' in capsys.readouterr().err.splitlines()[-1]
    )


def test_a_part_that_breaks_is_a_row_and_the_others_are_measured(
    monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    def breaks(*_given: Any) -> Any:
        yield {"network": "tiny"}
        raise RuntimeError("no kernel image\nfor this card")

    parts = {"peak": breaks, "micro": lambda *_: iter([{"network": "tiny", "ms": 1}])}
    assert main(monkeypatch, "--device", "cpu", "--tiny", "--parts", "peak,micro", PARTS=parts) == 1
    said = capsys.readouterr().out
    assert "| 1 | RuntimeError('no kernel image\\nfor this card') | **no** |" in said
    assert "| tiny | 1 |" in said
    assert said.endswith("1 that do not hold\n")
