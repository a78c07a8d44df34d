"""The cut: trunk and tail together equal the network, to the bit, and share its Parameters."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch import nn

from fed_asi import models
from fed_asi.compression import cut
from fed_asi.compression.tune import tune_last_
from fed_asi.errors import ConfigError, UnsupportedLayerError


def images(size: int, batch: int = 2) -> torch.Tensor:
    return torch.randn(batch, 3, size, size, generator=torch.Generator().manual_seed(0))


@pytest.mark.few(3)
@pytest.mark.parametrize(
    ("name", "layers", "point"),
    [
        ("tiny", 2, "blocks_1_point_linear_bn"),
        ("tiny", 0, "flatten"),
        ("mcunet", 2, "add_6"),
        ("mcunet", 4, "add_5"),
        ("mobilenet_v2", 2, "add_9"),
        ("resnet18", 2, "layer4_0_relu_1"),
        ("squeezenet1_1", 2, "features_10_squeeze_activation"),
    ],
)
def test_trunk_then_tail_is_the_network_to_the_bit(name: str, layers: int, point: str) -> None:
    model = models.build(name, 10).eval()
    x = images(32 if name == "tiny" else 64)
    trunk, tail = cut.cut(model, tune_last_(model, layers), x)
    with torch.no_grad():
        assert torch.equal(tail.eval()(trunk(x)), model(x))
    assert cut.cut_point(trunk) == point
    assert len(trunk.graph.nodes) > 2


def test_the_tail_trains_the_networks_own_parameters_under_their_names() -> None:
    model = models.build("tiny", 10)
    trained = tune_last_(model, 2)
    trunk, tail = cut.cut(model, trained, images(32))
    own = dict(model.named_parameters())
    in_tail = dict(tail.named_parameters())
    assert set(trained) <= set(in_tail)
    assert all(own[name] is parameter for name, parameter in in_tail.items())
    trunk_parameters = list(trunk.parameters())
    assert not any(parameter.requires_grad for parameter in trunk_parameters)
    assert not {id(p) for p in trunk_parameters} & {id(p) for p in model.parameters()}


def test_gradients_are_those_of_the_whole_network() -> None:
    model = models.build("tiny", 10).eval()
    x, y = images(32, 4), torch.tensor([0, 1, 2, 3])
    trunk, tail = cut.cut(model, tune_last_(model, 2), x)
    nn.functional.cross_entropy(model(x), y).backward()
    wanted = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    nn.functional.cross_entropy(tail.eval()(trunk(x)), y).backward()
    assert wanted
    assert all(torch.equal(grad, model.get_parameter(name).grad) for name, grad in wanted.items())


def test_the_model_keeps_its_modes_and_buffers() -> None:
    model = models.build("tiny", 10).train()
    model.first_conv.eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    modes = [module.training for module in model.modules()]
    cut.cut(model, ["classifier"], images(32))
    assert [module.training for module in model.modules()] == modes
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_a_trained_first_layer_leaves_an_empty_trunk() -> None:
    model = models.build("tiny", 10)
    trunk, tail = cut.cut(model, ["first_conv.conv.weight"], images(32))
    assert [node.op for node in trunk.graph.nodes] == ["placeholder", "output"]
    assert torch.equal(trunk(images(32)), images(32))
    assert dict(tail.named_parameters()).keys() == dict(model.named_parameters()).keys()


class WritesIntoFeatures(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.narrow = nn.Conv2d(3, 2, 3)
        self.act = nn.ReLU(inplace=True)
        self.widen = nn.Conv2d(2, 4, 1)
        self.head = nn.Conv2d(4, 3, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.widen(self.act(self.narrow(x))))


def test_kept_features_are_never_written_into() -> None:
    model = WritesIntoFeatures()
    x = images(8)
    trunk, tail = cut.cut(model, ["head"], x)
    features = trunk(x)
    kept = features.clone()
    tail(features)
    assert cut.cut_point(trunk) == "act"
    assert torch.equal(features, kept)


def test_the_tail_survives_copying_and_pickling() -> None:
    model = models.build("tiny", 10).eval()
    x = images(32)
    trunk, tail = cut.cut(model, ["classifier"], x)
    for copied in (copy.deepcopy(tail), pickle.loads(pickle.dumps(tail))):
        assert torch.equal(copied.eval()(trunk(x)), model(x))


class Branches(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x) if x.sum() > 0 else x


def test_a_network_that_cannot_be_traced_is_named_with_the_reason() -> None:
    with pytest.raises(UnsupportedLayerError, match=r"Branches.*control flow.*train it whole"):
        cut.cut(Branches(), ["layer"], torch.zeros(2, 3))


def test_a_layer_the_network_lacks_is_an_error() -> None:
    with pytest.raises(ConfigError, match=r"blocks\.99"):
        cut.cut(models.build("tiny", 10), ["blocks.99"], images(32))


@pytest.mark.few(1)
@pytest.mark.parametrize("name", ["tiny", "mcunet", "resnet18"])
def test_a_folded_trunk_is_the_trunk_to_rounding_without_its_batch_norms(name: str) -> None:
    model = models.build(name, 10).eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_var, 0.5, 2.0)
            nn.init.normal_(module.running_mean)
            nn.init.normal_(module.bias)
    x = images(64)
    trunk, _ = cut.cut(model, tune_last_(model, 2), x)
    with torch.no_grad():
        before, found = trunk(x), cut.folded(trunk)(x)
        assert torch.equal(trunk(x), before)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in cut.folded(trunk).modules())
    assert float((found - before).norm() / before.norm()) < 1e-5


class PoolsByFunction(nn.Module):
    """A convolution that trains, after a wider frozen one, and a global mean called as a function."""

    def __init__(self) -> None:
        super().__init__()
        self.narrow, self.wide, self.trained = nn.Conv2d(3, 2, 1), nn.Conv2d(2, 8, 1), nn.Conv2d(8, 4, 1)
        self.head = nn.Linear(4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        z = self.trained(self.wide(self.narrow(x)))
        return self.head(nn.functional.adaptive_avg_pool2d(z, (1, 1)).flatten(1))


@pytest.mark.parametrize(("latest", "channels"), [(False, 2), (True, 8)])
def test_the_cut_is_the_narrowest_or_the_latest_and_its_pool_a_module(latest: bool, channels: int) -> None:
    torch.manual_seed(0)
    model, x = PoolsByFunction().eval(), torch.randn(2, 3, 5, 5)
    trunk, tail = cut.cut(model, ["trained", "head"], x, latest=latest)
    assert trunk(x).shape[1] == channels
    assert torch.equal(tail(trunk(x)), model(x))
    assert any(isinstance(module, nn.AdaptiveAvgPool2d) for module in tail.modules())
    assert set(tail.state_dict()) <= set(model.state_dict())


def test_a_layer_that_shares_a_trained_weight_is_in_the_tail() -> None:
    """Else it would stay as it was in the trunk while its twin is trained."""
    model = nn.Sequential(nn.Conv2d(3, 3, 1), nn.ReLU(), nn.Conv2d(3, 3, 1), nn.Flatten(), nn.Linear(12, 2))
    model[2].weight = model[0].weight
    trunk, tail = cut.cut(model, ["2"], torch.zeros(1, 3, 2, 2))
    assert not list(trunk.parameters())
    assert "0.weight" in dict(tail.named_parameters())


def test_an_example_that_the_network_cannot_take_is_what_is_said() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.MaxPool2d(4), nn.Flatten(), nn.Linear(4, 2))
    with pytest.raises(
        ConfigError, match=r"Sequential cannot take \(1, 3, 4, 4\): .*too small.*use another resolution"
    ):
        cut.cut(model, ["3"], torch.zeros(1, 3, 4, 4))
