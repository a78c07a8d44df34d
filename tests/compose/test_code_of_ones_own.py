"""The project of experiments/own in containers, from a folder outside the clone, as in docs/howto/own_code.md."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from fed_asi.commands.main import main
from fed_asi.results.compare import compare
from tests.compose.stack import ROOT, Stack, outcomes

pytestmark = [pytest.mark.compose, pytest.mark.timeout(900)]


class OwnStack(Stack):
    """A copy of the project with fewer devices and little work; its compose file is what the command writes."""

    name = "own"

    def write(self, rounds: int, seed: int) -> None:
        """Copy the project beside the compose file."""
        project = self.folder / "project"
        shutil.copytree(
            ROOT / "experiments" / "own", project, ignore=shutil.ignore_patterns("runs", "__pycache__")
        )
        self.fleet = project / "fleet.toml"
        text = self.fleet.read_text()
        for was, now in (
            ("seed = 0", f"seed = {seed}"),
            ("rounds = 5", f"rounds = {rounds}"),
            ("cohort = 6", "cohort = 2"),
            ("epochs = 3", "epochs = 1"),
            ("count = 6", "count = 1"),
            ("count = 2", "count = 1"),
        ):
            assert text.count(was) == 1, was
            text = text.replace(was, now)
        self.fleet.write_text(text + "\n[pretrain]\nepochs = 1\n")
        assert main(["compose", str(self.fleet), "--out", str(self.folder / "docker-compose.yml")]) == 0


def test_code_of_ones_own_gives_the_same_weights_in_containers(
    image: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FED_ASI_FEATURES_DIR", str(tmp_path / "features"))
    with OwnStack(tmp_path, rounds=2) as stack:
        done = stack.up_to_the_end()
        assert done.returncode == 0, done.stdout[-3000:]
        with stack.records(tmp_path / "contained") as store:
            rows = outcomes(store)
    assert {device: [one.outcome for one in each] for device, each in rows.items()} == {
        0: ["trained"] * 2,
        1: ["trained"] * 2,
    }
    assert rows[0][0].method == "largest+vanilla"
    assert main(["run", str(stack.fleet), "--backend", "loop", "--out", str(tmp_path / "runs")]) == 0
    assert compare(tmp_path / "runs" / "own", tmp_path / "contained").equal_weights
