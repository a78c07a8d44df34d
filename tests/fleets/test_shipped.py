"""Every shipped fleet file is valid, and so is what the documents say about it."""

from __future__ import annotations

import re
import runpy
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import BaseModel

from fed_asi.errors import ConfigError
from fed_asi.fleets import fleet
from fed_asi.fleets.config import ComputeConfig, MethodConfig, RunConfig
from fed_asi.fleets.file import load_config
from fed_asi.fleets.problems import models_in
from fed_asi.methods import recipe_names, recipe_of
from fed_asi.results.store import RunStore
from fed_asi.workplace.address import run_fingerprint

ROOT = Path(__file__).parents[2]
FLEETS = sorted((ROOT / "experiments" / "fleets").glob("*.toml"))


@pytest.mark.parametrize("path", FLEETS, ids=lambda path: path.stem)
def test_shipped_fleet_file(path):
    config = load_config(path, cpus=4)
    assert config.name == path.stem
    assert len(fleet.build(config)) == config.num_devices >= config.cohort


def test_the_two_everyone_needs_are_there():
    assert {"demo", "cifar10"} <= {path.stem for path in FLEETS}


def test_the_documented_mistakes_are_what_is_said(tmp_path):
    text = (ROOT / "docs" / "reference" / "errors.md").read_text()
    toml, said = (re.search(f"```{kind}\n(.*?)```", text, re.DOTALL)[1] for kind in ("toml", "text"))
    (tmp_path / "five.toml").write_text(toml)
    with pytest.raises(ConfigError) as caught:
        load_config(tmp_path / "five.toml", cpus=4)
    assert said.splitlines() == [f"fed-asi: {len(caught.value.problems)} problems"] + [
        f"  {problem}" for problem in caught.value.problems
    ]


def section(title: str) -> str:
    text = (ROOT / "docs" / "reference" / "fleet_file.md").read_text()
    (part,) = re.findall(rf"^## {re.escape(title)}\n(.*?)(?=^## |\Z)", text, re.DOTALL | re.MULTILINE)
    return part


def sections(model: type[BaseModel] = RunConfig, name: str = "") -> Iterator[tuple[str, type[BaseModel]]]:
    yield name, model
    for key, field in model.model_fields.items():
        for inner in models_in(field.annotation):
            yield from sections(inner, f"{name}.{key}".lstrip("."))


@pytest.mark.parametrize(("name", "model"), list(sections()))
def test_every_setting_is_documented(name, model):
    title = {
        "": "The run",
        "budgets": "The run",
        "groups.schedule": "Entries of a schedule",
        "devices.schedule": "Entries of a schedule",
        "groups.device": "A device",
        "devices.device": "A device",
        "groups.presence": "Presence",
        "devices.presence": "Presence",
    }.get(name, name)
    documented = set(re.findall(r"^\| `([a-z0-9_]+)`", section(title), re.MULTILINE))
    hidden = {
        "version",
        "code",  # what the names of code stand for: no key of a file
        *(key for key, field in model.model_fields.items() if list(models_in(field.annotation))),
    }
    settings = {key for one in recipe_names() for key in recipe_of(one).settings if model is MethodConfig}
    shown = {"schedule", "device", "presence"}  # tables that a group's or a device's keys name
    assert documented == settings | set(model.model_fields) - (hidden - shown)


OTHER = {
    "backend": "loop",
    "threads": 2,
    "cpus_per_client": 2,
    "workers": 3,
    "ray_address": "10.0.0.1:6379",
    "deadline_seconds": 5.0,
    "features": "float16",
    "features_limit": 1000,
    "side_by_side": False,
    "gradients_at": "batch",
    "trunk_engine": "onnxruntime",
    "device": "cuda",
    "gpus_per_client": 0.5,
}


def free_keys() -> set[str]:
    """The keys of [compute] that two runs may differ in and still be the same run."""
    config = load_config(FLEETS[0], cpus=4)
    changed = {
        key: config.model_copy(update={"compute": config.compute.model_copy(update={key: value})})
        for key, value in OTHER.items()
    }
    return {key for key, other in changed.items() if run_fingerprint(other) == run_fingerprint(config)}


def test_what_of_compute_changes_results_is_documented_as_the_fingerprint_has_it():
    """A late device is left out of the result, yet a resumed run may have another deadline."""
    assert set(OTHER) == set(ComputeConfig.model_fields)
    rows = re.findall(r"^\| `([a-z_]+)` \|.*\| (.+) \|$", section("compute"), re.MULTILINE)
    unchanged = {key for key, changes in rows if changes == "no"}
    assert unchanged | {"deadline_seconds"} == free_keys()
    (said,) = re.findall(r"\n\n\s*(.*) change how long a run takes, never", ComputeConfig.__doc__ or "")
    assert set(re.findall(r"\w+", said)) - {"and"} == unchanged
    simulation = (ROOT / "docs" / "explanation" / "simulation.md").read_text()
    (said,) = re.findall(r"^## Settings that change time, never results\n(.*?)\. ", simulation, re.MULTILINE)
    assert set(re.findall(r"`(?:compute\.)?(\w+)`", said)) == unchanged


def test_the_names_of_ones_own_work_as_documented(tmp_path, own_names, monkeypatch):
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("FED_ASI_FEATURES_DIR", str(tmp_path / "features"))
    (code,) = re.findall(r"```python\n(.*?)```", section("Names of your own"), re.DOTALL)
    shorter = '"method.layers=1", "rounds=1", "cohort=2", "pretrain.epochs=1", "method.calibration_images=16"'
    code = code.replace('"method.layers=1"', shorter).replace("runs/own", str(tmp_path / "own"))
    (tmp_path / "documented.py").write_text(code)
    runpy.run_path(str(tmp_path / "documented.py"))
    with RunStore.read(tmp_path / "own") as store:
        assert store.run().status == "finished"
        assert store.config().model.name == "small"
        sizes = [device.num_examples for device in store.devices()]
    assert max(sizes) - min(sizes) <= 5
