"""Your own networks: registered, built, normalised and given weights like those of this package."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from fed_asi import models
from fed_asi.errors import ConfigError, WeightsError
from fed_asi.models import registry
from fed_asi.workplace.prepare import prepare
from runs import small

HALVES = ((0.5, 0.5, 0.5), (0.25, 0.25, 0.25))


pytestmark = pytest.mark.usefixtures("own_names")


def plain(num_classes: int, resolution: int | None) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, stride=4, bias=False),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(4, num_classes),
    )


def test_a_network_of_ones_own_is_built_by_its_name() -> None:
    models.register("plain", plain, normalisation=HALVES, resolution=48, aliases=("simple",))
    before = torch.get_rng_state()
    one, again, other = (models.build("plain", 7, seed=seed) for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), before)
    assert one(torch.zeros(2, 3, 32, 32)).shape == (2, 7)
    assert torch.equal(one[0].weight, again[0].weight)
    assert not torch.equal(one[0].weight, other[0].weight)
    assert (models.canonical("simple"), models.resolution_of("simple")) == ("plain", 48)
    assert models.normalisation("plain") == HALVES
    assert {"plain", "simple", "mcunet", "resnet18"} <= set(models.names())


def test_what_is_not_said_is_imagenets() -> None:
    models.register("plain", plain)
    assert models.resolution_of("plain") == 224
    assert models.normalisation("plain") == models.normalisation("resnet18")


def test_the_resolution_asked_for_reaches_the_function() -> None:
    asked: list[int | None] = []

    def notes(num_classes: int, resolution: int | None) -> nn.Module:
        asked.append(resolution)
        return nn.Linear(1, num_classes)

    models.register("notes", notes)
    models.build("notes", 2, resolution=64)
    models.build("notes", 2)
    assert asked == [64, None]


def test_weights_from_a_file_fit_under_the_names_of_their_publisher(tmp_path: Path) -> None:
    models.register("plain", plain, rename=lambda key: key.removeprefix("module."))
    wanted = plain(7, None).state_dict()
    torch.save({f"module.{key}": value for key, value in wanted.items()}, tmp_path / "plain.pth")
    found = models.build("plain", 7, tmp_path / "plain.pth").state_dict()
    assert all(torch.equal(found[key], value) for key, value in wanted.items())
    with pytest.raises(WeightsError, match="there are no published ImageNet weights of plain"):
        models.build("plain", 7, "imagenet")


def test_a_run_trains_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FED_ASI_FEATURES_DIR", str(tmp_path / "features"))
    models.register("plain", plain)
    place = prepare(small(model={"name": "plain"}, method={"layers": 1}), tmp_path / "workplace")
    assert "0.weight" in place.reference


def test_an_unknown_name_gets_the_nearest_ones_also_of_ones_own() -> None:
    models.register("plain-net", plain)
    with pytest.raises(ConfigError, match="unknown network 'plane-net'; did you mean plain-net"):
        models.build("plane-net", 10)


def test_a_function_that_returns_something_else_is_named() -> None:
    models.register("none", lambda _classes, _resolution: None)  # type: ignore[arg-type,return-value]
    with pytest.raises(
        ConfigError, match=r"network 'none': its function returned NoneType, not a torch\.nn\.Module"
    ):
        models.build("none", 10)


def test_the_package_registers_its_own_the_same_way() -> None:
    assert set(models.mcunet.FAMILY) <= set(registry._NETWORKS)
