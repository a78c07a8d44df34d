"""Files that a fleet file names: beside it, absolute, or in the data folder; found from any folder later."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from fed_asi import data, models
from fed_asi.commands.main import main
from fed_asi.fleets.config import RunConfig
from fed_asi.fleets.file import load_config
from fed_asi.results.store import RunStore
from fleet_file import GOOD, problems_of
from pictures import pixels


def npz(path: Path, count: int = 24) -> Path:
    path.parent.mkdir(exist_ok=True)
    labels = np.arange(count) % 2
    np.savez(path, x_train=pixels(count), y_train=labels, x_test=pixels(4), y_test=labels[:4])
    return path


def source(path: Path, name: str, data_dir: Path | None = None) -> str:
    return load_config(path, [f'data.source="{name}"'], cpus=4, data_dir=data_dir).data.source


def test_a_path_starts_at_the_fleet_file_and_becomes_absolute(
    write: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, elsewhere = write(GOOD), tmp_path / "elsewhere"
    mine, _ = npz(tmp_path / "mine.npz"), npz(elsewhere / "mine.npz", 30)
    monkeypatch.chdir(elsewhere)
    for name in ("mine.npz", "./mine.npz", str(mine)):
        config = RunConfig.from_json(load_config(path, [f'data.source="{name}"'], cpus=4).to_json())
        assert Path(config.data.source).is_absolute()
        assert len(data.load(config.data.source).y_train) == 24
    monkeypatch.chdir(tmp_path)
    assert source(Path("fleet.toml"), "mine.npz") == str(mine)


def test_a_name_is_that_of_an_npz_in_the_data_folder(
    write: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = npz(tmp_path / "data" / "mine.npz").parent
    npz(folder / "cifar10.npz")
    assert source(write(GOOD), "mine", folder) == str(folder / "mine.npz")
    assert (
        source(write(GOOD), "cifar10", folder) == "cifar10"
    )  # a known name stays one, wherever its data are
    assert problems_of(write(GOOD), "data.source=mine")[0].startswith("data.source: unknown 'mine'")
    monkeypatch.setenv("FED_ASI_DATA_DIR", str(folder))
    assert source(write(GOOD), "mine") == str(folder / "mine.npz")


def test_weights_are_beside_the_fleet_file_or_in_the_working_folder(
    write: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def weights(name: str) -> str:
        return load_config(write(GOOD), [f'model.weights="{name}"'], cpus=4).model.weights

    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    (here / "a.pth").touch()
    assert weights("a.pth") == str(here / "a.pth")
    (tmp_path / "a.pth").touch()
    assert weights("a.pth") == str(tmp_path / "a.pth")
    assert [weights(name) for name in ("public", "none", "imagenet", "nowhere.pth")] == [
        "public", "none", "imagenet", "nowhere.pth",
    ]  # fmt: skip


FLEET = """
name = "own"
rounds = 1
cohort = 1
data = {source = "SOURCE", public = 8}
model = {resolution = 8, weights = "w.pth"}
method = {name = "head"}
groups = [{name = "a", count = 2, budget = "unlimited"}]
"""


@pytest.mark.parametrize("name", ["own.npz", "own"])
def test_a_run_on_a_file_of_ones_own(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same names work in `run` and in `plan`, from another folder than the one they were given in."""
    monkeypatch.setenv("FED_ASI_FEATURES_DIR", str(tmp_path / "features"))
    monkeypatch.setattr("fed_asi.results.figures.draw", lambda _summaries, **_how: {})
    monkeypatch.setattr("fed_asi.commands.console.signal.signal", lambda *_: None)
    npz(tmp_path / "own.npz")
    torch.save(models.build("tiny", 2).state_dict(), tmp_path / "w.pth")
    (tmp_path / "fleet.toml").write_text(FLEET.replace("SOURCE", name))
    away = tmp_path / "away"
    away.mkdir()
    monkeypatch.chdir(away)
    words = ["run", "../fleet.toml", "--backend", "loop", "--out", "runs", "--data-dir", str(tmp_path)]
    assert main(words) == 0
    with RunStore.read(away / "runs" / "own") as store:
        assert Path(store.config().data.source).samefile(tmp_path / "own.npz")
        assert Path(store.config().model.weights).samefile(tmp_path / "w.pth")


@pytest.mark.parametrize(("name", "code"), [("own", 0), ("../own.npz", 0), ("own.npz", 2)])
def test_a_plan_takes_the_same_names(
    name: str, code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    npz(tmp_path / "own.npz")
    (tmp_path / "away").mkdir()
    monkeypatch.chdir(tmp_path / "away")
    words = [
        "plan",
        "--model",
        "tiny",
        "--weights",
        "none",
        "--last",
        "0",
        "--resolution",
        "8",
        "--source",
        name,
    ]
    assert main([*words, "--data-dir", str(tmp_path)]) == code
