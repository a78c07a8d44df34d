"""Every fleet file the project ships is right, and so is what the documents say of them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import BaseModel

from fed_asi.errors import ConfigError
from fed_asi.fleets import fleet
from fed_asi.fleets.config import RunConfig
from fed_asi.fleets.file import load_config
from fed_asi.fleets.problems import models_in

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
    text = (ROOT / "docs" / "errors.md").read_text()
    toml, said = (re.search(f"```{kind}\n(.*?)```", text, re.DOTALL)[1] for kind in ("toml", "text"))
    (tmp_path / "five.toml").write_text(toml)
    with pytest.raises(ConfigError) as caught:
        load_config(tmp_path / "five.toml", cpus=4)
    assert said.splitlines() == [f"fed-asi: {len(caught.value.problems)} problems"] + [
        f"  {problem}" for problem in caught.value.problems
    ]


def sections(model: type[BaseModel] = RunConfig, name: str = "") -> Iterator[tuple[str, type[BaseModel]]]:
    yield name, model
    for key, field in model.model_fields.items():
        for inner in models_in(field.annotation):
            yield from sections(inner, f"{name}.{key}".lstrip("."))


@pytest.mark.parametrize(("name", "model"), list(sections()))
def test_every_setting_is_documented(name, model):
    text = (ROOT / "docs" / "fleet_file.md").read_text()
    title = {
        "": "The run",
        "budgets": "The run",
        "groups.schedule": "Entries of a schedule",
        "devices.schedule": "Entries of a schedule",
    }.get(name, name)
    (part,) = re.findall(rf"^## {re.escape(title)}\n(.*?)(?=^## |\Z)", text, re.DOTALL | re.MULTILINE)
    documented = set(re.findall(r"^\| `([a-z_]+)`", part, re.MULTILINE))
    hidden = {
        "version",
        *(key for key, field in model.model_fields.items() if list(models_in(field.annotation))),
    }
    assert documented == set(model.model_fields) - (hidden - {"schedule"})
