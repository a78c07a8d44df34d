"""What docs/reference/strategies.md says holds: its fleet file loads, its strategy and codec run, its numbers hold."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import pytest

from fed_asi import codecs, strategies
from fed_asi.fleets.aggregate import codec_of, strategy_of
from fed_asi.fleets.file import load_config
from fed_asi.results.store import RunStore

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "reference" / "strategies.md").read_text()
DEMO = ROOT / "experiments" / "fleets" / "demo.toml"


def test_the_tables_shown_are_those_of_a_fleet_file(tmp_path: Path) -> None:
    (shown,) = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)
    text = DEMO.read_text()
    head, group = text.split("[[groups]]", 1)
    (tmp_path / "shown.toml").write_text(f"{head}{shown}[[groups]]{group}")
    config = load_config(tmp_path / "shown.toml", cpus=4)
    assert strategy_of(config.aggregate) == strategies.find("fedadam")(server_lr=0.03)
    assert codec_of(config.upload) == codecs.find("int8")()


def test_one_of_ones_own_runs_as_shown(
    tmp_path: Path, own_names: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("FED_ASI_FEATURES_DIR", str(tmp_path / "features"))
    (code,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    smaller = (
        '"rounds=2", "cohort=2", "method.layers=1", "pretrain.epochs=1", "method.calibration_images=16", '
    )
    smaller += '"data.limit=150", "data.test_limit=40", "data.public=64", "sharding.minimum=2"'
    assert '"rounds=2"' in code
    code = code.replace('"rounds=2"', smaller).replace("runs/half-way", str(tmp_path / "own"))
    (tmp_path / "documented.py").write_text(code)
    runpy.run_path(str(tmp_path / "documented.py"))
    with RunStore.read(tmp_path / "own") as store:
        assert store.run().status == "finished"
        rows = [row for row in store.device_rounds() if row.outcome == "trained"]
        assert store.config().aggregate.strategy == "half-way"
    assert len(rows) == 4
    assert all(
        row.kept_bytes and row.strategy_bytes == 2 * row.kept_bytes for row in rows
    )  # start and residual


def test_the_fleet_files_page_names_them_all() -> None:
    text = (ROOT / "docs" / "reference" / "fleet_file.md").read_text()
    (row,) = re.findall(r"^\| `strategy` \|(.*)$", text, re.MULTILINE)
    assert set(re.findall(r'"([a-z-]+)"', row)) == set(strategies.names())
    (row,) = re.findall(r"^\| `codec` \|(.*)$", text, re.MULTILINE)
    assert set(re.findall(r'"([a-z0-9-]+)"', row)) == set(codecs.names())
