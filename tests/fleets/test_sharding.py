"""[sharding]: its own keys, and those of your own scheme, checked against its dataclass."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import numpy as np
import pytest
from pydantic import Field

from fed_asi.data import shards
from fed_asi.data.schemes import ClassesPerDevice, Dirichlet, Iid, Scheme
from fed_asi.errors import ConfigError
from fed_asi.fleets.config import RunConfig
from fed_asi.fleets.file import load_config
from fed_asi.fleets.sharding import ShardingConfig, problems, scheme_of
from fed_asi.workplace.prepare import prepare
from fleet_file import GOOD, problems_of
from runs import small


@dataclass(frozen=True)
class Heaps:
    """The first devices get a heap each of these sizes, the rest is dealt in turn."""

    sizes: tuple[int, ...]
    minimum: int = 1
    step: Annotated[int, Field(ge=1)] = field(default=1, metadata={"key": "in_turns_of"})
    shuffled: bool = False

    def __post_init__(self) -> None:
        if sum(self.sizes) > 1000:
            raise ConfigError(f"sizes {self.sizes} are more than anyone has")

    def owners(self, labels: np.ndarray, num_devices: int, rng: np.random.Generator) -> np.ndarray:
        owner = np.arange(len(labels)) // self.step % num_devices
        start = 0
        for device, size in enumerate(self.sizes):
            owner[start : start + size], start = device, start + size
        return rng.permutation(owner) if self.shuffled else owner


@pytest.fixture(autouse=True)
def _heaps(own_names: None) -> None:
    shards.register("heaps", Heaps)


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ({}, Dirichlet(0.5)),
        ({"alpha": 1, "minimum": 3}, Dirichlet(1.0, 3)),
        ({"balanced": False}, Dirichlet(0.5, balanced=False)),
        ({"scheme": "iid", "minimum": 2, "alpha": 0.1}, Iid(2)),
        ({"scheme": "classes"}, ClassesPerDevice(2)),
        ({"scheme": "classes", "classes_per_device": 4, "minimum": 5}, ClassesPerDevice(4, 5)),
        ({"scheme": "heaps", "sizes": [5, 3]}, Heaps((5, 3))),
        (
            {"scheme": "heaps", "sizes": [], "in_turns_of": 2, "minimum": 4, "shuffled": True},
            Heaps((), 4, 2, True),
        ),
    ],
)
def test_keys_are_the_schemes_settings(said: dict[str, object], expected: Scheme) -> None:
    config = ShardingConfig.model_validate(said)
    assert scheme_of(config) == expected
    assert scheme_of(ShardingConfig.model_validate_json(config.model_dump_json())) == expected


@pytest.mark.parametrize(
    ("table", "expected"),
    [
        ('scheme = "heap"', ["sharding.scheme: unknown 'heap'; did you mean heaps?"]),
        ("alhpa = 1", ["sharding.alhpa: unknown key; did you mean alpha?"]),
        (
            'scheme = "classes"\nclasses = 3',
            ["sharding.classes: unknown key; known: alpha, classes_per_device, minimum, scheme"],
        ),
        ("alpha = 0", ["sharding.alpha: must be greater than 0, not 0"]),
        ("balanced = 1", ["sharding.balanced: must be true or false, not 1"]),
        ('scheme = "heaps"', ["sharding.sizes: missing"]),
        ('scheme = "heaps"\nsizes = 3', ["sharding.sizes: must be a list, not 3"]),
        ('scheme = "heaps"\nsizes = [1, "x"]', ["sharding.sizes[1]: must be a whole number, not 'x'"]),
        ('scheme = "heaps"\nsizes = [2000]', ["sharding: sizes (2000,) are more than anyone has"]),
        (
            'scheme = "heaps"\nin_turns_off = 1\nin_turns_of = 0',
            [
                "sharding.in_turns_off: unknown key; did you mean in_turns_of?",
                "sharding.sizes: missing",
                "sharding.in_turns_of: must be greater than or equal to 1, not 0",
            ],
        ),
    ],
)
def test_what_is_wrong_is_said_as_of_every_other_key(
    write: Callable, table: str, expected: list[str]
) -> None:
    assert problems_of(write(f"{GOOD}[sharding]\n{table}\n")) == expected


def test_settings_of_a_scheme_nobody_registered_here_can_still_be_read(
    write: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A report of a run needs none of the code that dealt its images."""
    config = load_config(write(f'{GOOD}[sharding]\nscheme = "heaps"\nsizes = [5]\n'), cpus=4)
    monkeypatch.delitem(shards._SCHEMES, "heaps")
    again = RunConfig.from_json(config.to_json())
    assert again == config
    assert problems(again.sharding) == [
        "sharding.scheme: unknown 'heaps'; known: classes, column, dirichlet, iid"
    ]
    with pytest.raises(ConfigError, match=r"sharding\.scheme: unknown 'heaps'"):
        scheme_of(again.sharding)


def test_a_run_deals_its_images_by_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FED_ASI_FEATURES_DIR", str(tmp_path / "features"))
    table = {"scheme": "heaps", "sizes": [100, 50], "minimum": 5}
    place = prepare(small(sharding=table), tmp_path / "workplace")
    assert list(place.shards.sizes[:2]) == [115, 65]
    assert place.shards.sizes.sum() == 240
