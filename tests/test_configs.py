"""Every fleet file the project ships is right."""

from __future__ import annotations

from pathlib import Path

import pytest

from fed_asi import fleet
from fed_asi.config_file import load_config

FLEETS = sorted((Path(__file__).parents[1] / "experiments" / "fleets").glob("*.toml"))


@pytest.mark.parametrize("path", FLEETS, ids=lambda path: path.stem)
def test_shipped_fleet_file(path):
    config = load_config(path, cpus=4)
    assert config.name == path.stem
    assert len(fleet.build(config)) == config.num_devices >= config.cohort


def test_the_two_everyone_needs_are_there():
    assert {"demo", "cifar10"} <= {path.stem for path in FLEETS}
