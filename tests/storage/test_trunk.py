"""Trunks in eight bits, within the error that their scales allow, and against plain arithmetic on the same grids."""

from __future__ import annotations

import copy
import pickle
import re
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from fed_asi.compression import cut
from fed_asi.data.features import trunk_fingerprint
from fed_asi.errors import ConfigError, UnsupportedLayerError
from fed_asi.storage.int8_layers import Int8Layer, Int8Product
from fed_asi.storage.trunk import calibrated, problems, stored_trunk
from tails import tail_of


def images(count: int = 8, size: int = 16) -> Tensor:
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(0))


def traced(make: Callable[[], nn.Module]) -> fx.GraphModule:
    """Return a network of seeded weights as a trunk; its batch norms have seen a batch."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = make()
        with torch.no_grad():
            net.train()(images())
    return cut.folded(fx.symbolic_trace(net.eval()))


class Mixed(nn.Module):
    """Every way of combining that a trunk may have."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.late = nn.BatchNorm2d(8)
        self.swish = nn.Hardswish(inplace=True)
        self.middle = nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.gate = nn.Conv2d(8, 8, 1)
        self.last = nn.Conv2d(16, 6, 1)
        self.drop = nn.Dropout(0.5)

    def forward(self, x: Tensor) -> Tensor:
        """Return features, (B, 6, 1, 1)."""
        x = self.swish(self.norm(self.first(x)))
        y = F.relu(self.middle(x))
        y = y * torch.sigmoid(self.gate(F.adaptive_avg_pool2d(y, 1)))
        y = self.late(torch.add(x, y))
        x = F.max_pool2d(torch.cat([y + y, x * 0.5], 1), 2)
        return F.avg_pool2d(self.drop(F.relu6(self.last(x))), 4).mean((2, 3), keepdim=True)


def bound(trunk: fx.GraphModule, stored: fx.GraphModule, x: Tensor) -> tuple[Tensor, Tensor]:
    """Return (float32's output, how far the stored one's may be from it) of convolutions behind one another.

    A number is at most half a step from what it was rounded from; an input's error is multiplied by at most the sum
    of a row's magnitudes; a weight's half step by the sum of the inputs it meets. A grid that covers a range may
    leave half a step at its ends.
    """
    layers = [m for m in stored.modules() if isinstance(m, Int8Product)]
    convolutions = [m for m in trunk.modules() if isinstance(m, nn.Conv2d)]
    scale = stored.get_submodule("x_to_int8").grid.scale
    x, error = x.double(), torch.full_like(x.double(), scale)
    for conv, layer in zip(convolutions, layers, strict=True):
        how = {name: getattr(conv, name) for name in ("stride", "padding", "groups")}
        weight = conv.weight.double()
        half = (weight.flatten(1).abs().amax(1) / 127 / 2).view(-1, 1, 1, 1).expand_as(weight)
        wrong = F.conv2d(error, weight.abs() + half, **how) + F.conv2d(x.abs(), half, **how)
        x = F.relu6(F.conv2d(x, weight, conv.bias.double(), **how))
        error = wrong * (1 + 1e-5) + layer.grid.scale * 1.001
    return x, error


def test_features_are_within_what_the_scales_allow() -> None:
    def net() -> nn.Module:
        parts = (nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, groups=8), nn.Conv2d(8, 4, 1, stride=2))
        return nn.Sequential(
            *(one for part in parts for one in (part, nn.BatchNorm2d(len(part.weight)), nn.ReLU6()))
        )

    trunk = traced(net)
    trunk = fx.GraphModule(trunk, trunk.graph)
    x = images()
    stored = stored_trunk(trunk, "int8", calibrated(trunk, x))
    stored.add_module("x_to_int8", stored.get_submodule("input_1_to_int8"))
    expected, allowed = bound(trunk, stored, x)
    wrong = (stored(x).double() - expected).abs()
    assert (wrong <= allowed).all()
    assert 0 < wrong.max() < 0.1 * expected.max()
    assert allowed.max() < expected.max()  # a bound that says something


def on_the_grids(stored: fx.GraphModule, x: np.ndarray) -> list[np.ndarray]:
    """Return the output of each convolution of a chain, real numbers on its grid, all in numpy's float64."""
    found, before = [], 1.0
    for layer in stored.children():
        if isinstance(layer, Int8Product):
            scale = layer.multiplier.double().numpy() * layer.grid.scale / before
            w = layer.weight.numpy() * scale[:, None, None, None]
            b = layer.offset.double().numpy() * layer.grid.scale
            y = F.conv2d(
                torch.from_numpy(x), torch.from_numpy(w), torch.from_numpy(b), **layer.settings
            ).numpy()
        else:
            y = x
        whole = np.clip(np.rint(y / layer.grid.scale), layer.grid.low, layer.grid.high)
        x, before = whole * layer.grid.scale, layer.grid.scale
        found.append(x)
    return found


def test_it_is_fake_quantisation_computed_without_its_rounding_errors() -> None:
    trunk = traced(lambda: nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 3, stride=2)))
    x = images()
    stored = stored_trunk(trunk, "int8", calibrated(trunk, x))
    steps = np.rint(on_the_grids(stored, x.double().numpy())[2] / (scale := stored.to_float32.grid.scale))
    found = np.rint(stored(x).double().numpy() / scale)
    assert np.abs(found - steps).max() <= 1  # where a number lies in the middle of two steps
    assert (found != steps).mean() < 1e-3


@pytest.fixture(scope="module")
def mixed() -> tuple[fx.GraphModule, dict[str, tuple[float, float]]]:
    trunk = traced(Mixed)
    return trunk, calibrated(trunk, images())


def test_every_kind_of_layer_has_a_form_near_its_own(mixed) -> None:
    trunk, ranges = mixed
    stored, x = stored_trunk(trunk, "int8", ranges), images()
    assert problems(trunk) == []
    assert (stored(x) - trunk(x)).norm() < 0.03 * trunk(x).norm()
    assert len(stored(x).unique()) > 10


def test_the_bits_depend_on_nothing_but_trunk_ranges_and_images(mixed) -> None:
    trunk, ranges = mixed
    stored, x = stored_trunk(trunk, "int8", ranges), images()
    found = stored(x)
    wide = stored_trunk(trunk, "int8", ranges)
    for layer in wide.modules():
        if isinstance(layer, Int8Product):
            layer.dtype = torch.float64  # another kernel, other sums
    assert torch.equal(wide(x), found)
    assert torch.equal(stored(x.contiguous(memory_format=torch.channels_last)), found)
    assert torch.equal(torch.cat([stored(one) for one in x.split(3)]), found)
    assert calibrated(trunk, x) == ranges
    again = stored_trunk(
        trunk, "int8", {name: list(ends) for name, ends in ranges.items()}
    )  # as JSON has them
    assert trunk_fingerprint(again) == trunk_fingerprint(stored)


def test_a_trunk_is_known_by_its_numbers(mixed) -> None:
    trunk, ranges = mixed
    other = {**ranges, "x": (ranges["x"][0], ranges["x"][1] * 1.5)}
    prints = {
        trunk_fingerprint(one)
        for one in (
            trunk,
            stored_trunk(trunk, "float16"),
            stored_trunk(trunk, "int8", ranges),
            stored_trunk(trunk, "int8", other),
        )
    }
    assert len(prints) == 4
    assert stored_trunk(trunk, "float32") is trunk


@pytest.mark.parametrize("name", ["mcunet", "mobilenet_v3_small"])
def test_known_networks_have_a_form(name: str) -> None:
    assert problems(cut.folded(tail_of(name, None, size=32, layers=1).trunk)) == []


def test_an_activation_is_the_end_of_its_layers_grid() -> None:
    trunk = traced(lambda: nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU6()))
    with torch.no_grad():
        next(trunk.parameters()).mul_(100)
    stored = stored_trunk(trunk, "int8", calibrated(trunk, images()))
    (layer,) = (m for m in stored.modules() if isinstance(m, Int8Product))
    assert (layer.grid.low, layer.grid.high) == (0, 255)
    assert stored(images()).aminmax() == (0, pytest.approx(6, rel=1e-6))


def odd(layer: nn.Module) -> fx.GraphModule:
    return fx.symbolic_trace(nn.Sequential(nn.Conv2d(3, 4, 3), layer).eval())


@pytest.mark.parametrize(
    ("layer", "why"),
    [
        (nn.PReLU(), "1: PReLU has no form in 8 bits"),
        (nn.Conv2d(4, 4, 3, padding=1, padding_mode="reflect"), "1: it pads by 'reflect'"),
        (nn.BatchNorm2d(4, track_running_stats=False), "1: BatchNorm2d has a form in 8 bits after"),
    ],
)
def test_what_has_no_form_is_named(layer: nn.Module, why: str) -> None:
    trunk = odd(layer)
    assert [one.startswith(why) for one in problems(trunk)] == [True]
    with pytest.raises(
        UnsupportedLayerError, match=f"cannot be stored in 8 bits: {re.escape(why)}.*use float16"
    ):
        calibrated(trunk, images())


def test_numbers_that_are_not_finite_are_named() -> None:
    conv = nn.Conv2d(4, 4, 1)
    with torch.no_grad():
        conv.weight[0] = torch.nan
    assert problems(odd(conv)) == ["1: its weights hold numbers that are not finite"]
    trunk = odd(nn.Conv2d(4, 4, 1))
    with pytest.raises(ConfigError, match="gives numbers on the public images that are not finite"):
        calibrated(trunk, images() * torch.inf)


class Overwritten(nn.Module):
    """Reads a convolution's output again, after, or before, an activation has written into it."""

    def __init__(self, after: bool) -> None:
        super().__init__()
        self.conv, self.relu, self.after = nn.Conv2d(3, 4, 1), nn.ReLU(inplace=True), after

    def forward(self, x: Tensor) -> Tensor:
        """Return features, (B, 4, H, W)."""
        x = self.conv(x)
        before = x if self.after else x * 1
        return self.relu(x) + before


def test_what_reads_a_tensor_that_was_written_into_is_named() -> None:
    trunk = traced(lambda: Overwritten(after=True))
    assert problems(trunk) == ["add: it reads what relu has written into"]
    other = traced(lambda: Overwritten(after=False))
    stored, x = stored_trunk(other, "int8", calibrated(other, images())), images()
    assert (stored(x) - other(x)).norm() < 0.02 * other(x).norm()


def test_a_call_that_has_no_form_is_named_and_so_are_ranges_of_another_trunk(mixed) -> None:
    class Cumulated(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.cumsum(x, 1)

    assert problems(fx.symbolic_trace(Cumulated())) == ["cumsum: cumsum has no form in 8 bits"]
    with pytest.raises(ConfigError, match="storage: no range is known of x; calibrate"):
        stored_trunk(mixed[0], "int8", {})


def test_a_stored_trunk_can_be_copied_and_has_int8_weights(mixed) -> None:
    stored, x = stored_trunk(*mixed[:1], "int8", mixed[1]), images(2)
    for again in (copy.deepcopy(stored), pickle.loads(pickle.dumps(stored))):
        assert torch.equal(again(x), stored(x))
    weights = [value for name, value in stored.state_dict().items() if name.endswith("weight")]
    assert {one.dtype for one in weights} == {torch.int8}
    assert all(isinstance(layer.grid.low, int) for layer in stored.modules() if isinstance(layer, Int8Layer))
