"""Networks by name: published structure, published weights, replaced heads, repeatable initial weights."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from fed_asi import models
from fed_asi.errors import ConfigError


def convolutions(model: nn.Module) -> list[nn.Conv2d]:
    return [module for module in model.modules() if isinstance(module, nn.Conv2d)]


def test_mcunet_has_the_published_size() -> None:
    model = models.build("mcunet", 1000)
    assert len(convolutions(model)) == 42
    assert sum(parameter.numel() for parameter in model.parameters()) == 636_232


@pytest.mark.parametrize("name", ["mcunet-in1", "mcunet-in3"])
def test_published_weights_load_whole(name: str, weights_dir: Path) -> None:
    published = torch.load(weights_dir / f"{name}.pth", weights_only=True)["state_dict"]
    state = models.build(name, 1000, "imagenet", weights_dir=weights_dir).state_dict()
    assert len(state) == len(published)
    for key, value in published.items():
        assert torch.equal(state[models.mcunet.from_published(key)], value), key


def test_another_number_of_classes_keeps_the_trunk_and_renews_the_head(weights_dir: Path) -> None:
    plain = models.build("mcunet", 10)
    loaded = models.build("mcunet", 10, "imagenet", weights_dir=weights_dir)
    assert torch.equal(plain.classifier.weight, loaded.classifier.weight)
    assert not torch.equal(plain.first_conv.conv.weight, loaded.first_conv.conv.weight)


@pytest.mark.parametrize(
    ("name", "convs"), [("tiny", 9), ("resnet18", 20), ("resnet34", 36), ("mobilenet_v2", 52)]
)
def test_networks_have_their_convolutions_and_classes(name: str, convs: int) -> None:
    model = models.build(name, 7).eval()
    assert len(convolutions(model)) == convs
    assert model(torch.zeros(1, 3, 32, 32)).shape == (1, 7)
    assert isinstance(model.get_submodule(models.head_name(model)), nn.Linear)


def test_convolutions_come_in_the_order_they_run() -> None:
    model = models.build("mcunet", 10).eval()
    seen: list[nn.Module] = []
    for module in convolutions(model):
        module.register_forward_hook(lambda module, _, __: seen.append(module))
    model(torch.zeros(1, 3, 64, 64))
    assert seen == convolutions(model)


def test_tracing_changes_nothing() -> None:
    model = models.build("tiny", 10).eval()
    x = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    assert torch.equal(torch.fx.symbolic_trace(model)(x), model(x))


def test_initial_weights_depend_on_the_seed_alone() -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()
    one, other = (models.build("tiny", 10, seed=seed).classifier.weight for seed in (0, 1))
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    assert torch.equal(models.build("tiny", 10, seed=0).classifier.weight, one)
    assert not torch.equal(one, other)


@pytest.mark.slow
@pytest.mark.computes
def test_a_vision_transformer_is_built_for_its_resolution() -> None:
    model = models.build("vit_b_16", 3, resolution=32).eval()
    assert model(torch.zeros(1, 3, 32, 32)).shape == (1, 3)


def test_an_unknown_name_gets_the_nearest_ones() -> None:
    with pytest.raises(ConfigError, match=r"unknown network 'mcnet'.*mcunet"):
        models.build("mcnet", 10)


def test_statistics_and_resolution_are_those_of_the_weights() -> None:
    assert models.normalisation("mcunet")[0] == (0.5, 0.5, 0.5)
    assert models.normalisation("resnet18")[1] == (0.229, 0.224, 0.225)
    assert (models.resolution_of("mcunet"), models.resolution_of("resnet18")) == (128, 224)


@pytest.mark.parametrize(
    ("name", "pixels", "words"),
    [
        (
            "alexnet",
            32,
            "network 'alexnet' at 32 x 32 pixels: it cannot take such images (.*too small.*made for 224",
        ),
        (
            "vit_b_16",
            30,
            "network 'vit_b_16' cannot be built for 2 classes and 30 x 30 pixels: .*made for 224 pixels",
        ),
    ],
)
def test_a_resolution_that_is_not_a_networks_is_said(name: str, pixels: int, words: str) -> None:
    with pytest.raises(ConfigError, match=words.replace("(", r"\(")):
        models.check_takes(models.build(name, 2, resolution=pixels), name, 2, pixels)


class Odd(nn.Module):
    def __init__(self, scores: object) -> None:
        super().__init__()
        self.scores = scores

    def forward(self, _: torch.Tensor) -> object:
        return self.scores


@pytest.mark.parametrize(
    ("scores", "words"),
    [
        (torch.zeros(1, 3), r"returns \(1, 3\) for one image, not scores of \(1, 2\)"),
        ({"out": 1}, "returns dict for one image"),
        (torch.full((1, 2), torch.nan), "scores of a grey image are not finite"),
    ],
)
def test_a_network_that_returns_no_scores_is_named(scores: object, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        models.check_takes(Odd(scores), "tiny", 2, 8)


def test_a_check_leaves_the_network_and_its_modes_as_they_were() -> None:
    model = models.build("tiny", 2).train()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    models.check_takes(model, "tiny", 2, 8)
    assert all(module.training for module in model.modules())
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_weights_made_for_other_pixels_than_imagenets_get_theirs() -> None:
    """googlenet's and inception's published weights come with a layer for it that these networks go without."""
    assert models.normalisation("googlenet") == models.normalisation("tiny") == ((0.5,) * 3, (0.5,) * 3)
    assert models.normalisation("resnet18")[0] == (0.485, 0.456, 0.406)


def test_a_constructor_that_fails_is_named(own_names: None) -> None:
    models.register("mine", lambda *_: 1 / 0)
    with pytest.raises(ConfigError, match="network 'mine' cannot be built for 2 classes: division by zero"):
        models.build("mine", 2)
