"""`fed-asi compare`: exits 0 if two runs are equal, 1 if they differ."""

from __future__ import annotations

from fed_asi.commands.main import main
from made_run import make


def test_equal_runs_exit_0_and_different_ones_1(tmp_path, capsys):
    a, b = make(tmp_path / "a"), make(tmp_path / "b", seed=1)
    assert main(["compare", str(a), str(a)]) == 0
    assert "all records are equal except for times" in capsys.readouterr().out
    assert main(["compare", str(a), str(b)]) == 1
    assert "first difference: round 1, device 1, accuracy_before" in capsys.readouterr().out
