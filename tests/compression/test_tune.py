"""Which parameters train, and that nothing else changes."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from fed_asi import models
from fed_asi.compression.tune import layers_named, tune_, tune_last_
from fed_asi.errors import ConfigError
from fed_asi.methods import ASI, BiasOnly, Frozen, Vanilla


def test_last_two_of_mcunet_train_their_norms_and_the_head() -> None:
    model = models.build("mcunet", 10)
    assert tune_last_(model, 2) == [
        "blocks.13.depth_conv.conv.weight",
        "blocks.13.depth_conv.bn.weight",
        "blocks.13.depth_conv.bn.bias",
        "blocks.13.point_linear.conv.weight",
        "blocks.13.point_linear.bn.weight",
        "blocks.13.point_linear.bn.bias",
        "classifier.weight",
        "classifier.bias",
    ]
    assert tune_last_(model, 0) == ["classifier.weight", "classifier.bias"]
    assert len(tune_last_(model, 42)) == 42 * 3 + 2


@pytest.mark.parametrize("n", [-1, 43, True, 1.0])
def test_counts_that_do_not_exist_are_refused(n: int) -> None:
    with pytest.raises(ConfigError, match="42 convolutions"):
        tune_last_(models.build("mcunet", 10), n)


def test_a_network_without_a_head_says_so() -> None:
    with pytest.raises(ConfigError, match="no head"):
        tune_last_(nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)), 0)


def test_a_plan_trains_exactly_what_it_names() -> None:
    model = models.build("mcunet", 10)
    trained = tune_(
        model,
        {
            "blocks.2.inverted_bottleneck.conv": ASI((1, 2, 3, 3)),
            "blocks.5.depth_conv.conv": BiasOnly(),
            "blocks.6.depth_conv.conv": Frozen(),
            "classifier": Vanilla(),
        },
    )
    assert trained == [
        "blocks.2.inverted_bottleneck.conv.weight",
        "blocks.2.inverted_bottleneck.bn.weight",
        "blocks.2.inverted_bottleneck.bn.bias",
        "blocks.5.depth_conv.bn.bias",
        "classifier.weight",
        "classifier.bias",
    ]


def test_a_wrong_name_changes_nothing() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 1, bias=False), nn.ReLU())
    with pytest.raises(ConfigError, match="no layer '3'"):
        tune_(model, {"0": Vanilla(), "3": Vanilla()})
    with pytest.raises(ConfigError, match="0: Conv2d has no bias"):
        tune_(model, {"0": BiasOnly()})
    with pytest.raises(ConfigError, match="1: ReLU has no weight"):
        tune_(model, {"1": Vanilla()})
    assert all(p.requires_grad for p in model.parameters())
    assert isinstance(model[0].weight, torch.Tensor)


def names(*asked: str) -> list[str]:
    return layers_named(models.build("tiny", 10), asked)


def test_a_block_is_its_layers_in_the_networks_order() -> None:
    block = [f"blocks.2.{one}.conv" for one in ("inverted_bottleneck", "depth_conv", "point_linear")]
    assert names("blocks.2") == block
    assert names("classifier", "blocks.2.depth_conv", "blocks.2.depth_conv.conv") == [block[1], "classifier"]
    assert names("blocks.2.depth_conv.conv.weight") == [block[1]]
    assert len(names("blocks")) == 8


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("nope", "no layer or block 'nope'; such as classifier"),
        ("classifer", "no layer or block 'classifer'; did you mean classifier?"),
        ("blocks.9", "no layer or block 'blocks.9'; did you mean blocks"),
        ("pool", "'pool' is a AdaptiveAvgPool2d, which holds no convolution or linear layer"),
        ("blocks.2.depth_conv.bn", "'blocks.2.depth_conv.bn' is a BatchNorm2d, which holds no"),
        ("", "no layer or block ''"),
    ],
)
def test_what_names_no_layer_is_an_error(name: str, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        names("classifier", name, "also wrong")
    assert caught.value.problems[0].startswith(words)
    assert len(caught.value.problems) == 2


def tied() -> nn.Module:
    model = nn.Sequential(nn.Conv2d(3, 3, 1), nn.ReLU(), nn.Conv2d(3, 3, 1), nn.Flatten(), nn.Linear(12, 2))
    model[2].weight = model[0].weight
    return model


def test_both_of_two_tied_layers_are_named() -> None:
    assert tune_last_(tied(), 1) == ["0.weight", "2.weight", "2.bias", "4.weight", "4.bias"]
    assert tune_(tied(), {"2": Vanilla()}) == ["0.weight", "2.weight", "2.bias"]
    assert layers_named(tied(), ["2"]) == ["0", "2"]
    shared = nn.Sequential(nn.Conv2d(3, 3, 1), nn.ReLU())
    shared.append(shared[0])
    assert layers_named(shared, ["2"]) == ["0"]  # one layer of two names
