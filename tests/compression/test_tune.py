"""Which parameters train, and nothing else changes."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from fed_asi import models
from fed_asi.compression.tune import tune_, tune_last_
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
