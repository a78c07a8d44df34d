"""The table of strategies: differences are paired by seed, and bytes are those of devices that trained."""

from __future__ import annotations

import runpy
from pathlib import Path

from made_run import make


def test_a_line_a_variant(tmp_path: Path) -> None:
    found = runpy.run_path(str(Path(__file__).parents[2] / "experiments" / "strategies_table.py"))
    row = found["Row"]
    variants = {
        "fedavg": {seed: row(0.5 + 0.1 * seed, 0.2, 2048.0, 1024.0, 0, 0) for seed in range(3)},
        "other": {seed: row(0.6 + 0.1 * seed, 0.2, 1024.0, 1024.0, 512, 256) for seed in range(3)},
    }
    _, _, first, second = "\n".join(found["lines"](variants, "fedavg")).split("\n")
    assert first == "| fedavg | 60.0 ± 24.8 |  | 20.0 ± 0.0 | 2.0 | 1.0 | 0.0 | 0.0 |"
    assert second == "| other | 70.0 ± 24.8 | +10.0 ± 0.0 | 20.0 ± 0.0 | 1.0 | 1.0 | 0.5 | 0.2 |"
    made = found["row_of"](make(tmp_path / "made"))
    assert found["is_finished"](tmp_path / "made")
    assert not found["is_finished"](make(tmp_path / "half", finish=False))
    assert not found["is_finished"](tmp_path / "none")
    assert made.accuracy == 0.9 - 0.7 / 4
    assert (made.up, made.held, made.kept) == (0.0, 0, 0)
