"""Layers in eight bits, against the same sums in numpy's integers."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fed_asi.storage import int8_layers
from fed_asi.storage.grid import Grid
from fed_asi.storage.int8_layers import (
    Int8Joined,
    Int8Layer,
    Int8Pool,
    Int8Product,
    Int8Sum,
    Int8Table,
    Int8Times,
    ToFloat32,
    ToInt8,
    most_sum,
)

A, B, OUT = Grid(0.5, -100, 155), Grid(0.03125, 0, 255), Grid(0.75, -60, 195)


def steps(grid: Grid, *shape: int, seed: int = 0) -> Tensor:
    draws = torch.Generator().manual_seed(seed)
    return torch.randint(grid.low, grid.high + 1, shape, generator=draws).float()


def seeded(make: Callable[[], nn.Module]) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return make()


def by_hand(layer: nn.Conv2d, x: np.ndarray, before: Grid, grid: Grid) -> np.ndarray:
    """Return a convolution's output, every product and sum one of Python's or numpy's integers."""
    w = layer.weight.detach().numpy().astype(np.float64)
    b = layer.bias.detach().numpy().astype(np.float64)
    scale = np.float64(np.float32(np.abs(w).reshape(len(w), -1).max(1) / 127))
    whole = np.clip(np.rint(w / scale[:, None, None, None]), -127, 127).astype(np.int64)
    bias = np.rint(b / (scale * before.scale)).astype(np.int64)
    (p, q), (s, _), (d, _) = layer.padding, layer.stride, layer.dilation
    x = np.pad(x.astype(np.int64), ((0, 0), (0, 0), (p, p), (q, q)))
    rows, per, kh, kw = w.shape
    size = ((x.shape[2] - d * (kh - 1) - 1) // s + 1, (x.shape[3] - d * (kw - 1) - 1) // s + 1)
    out = np.empty((len(x), rows, *size))
    for row, i, j in itertools.product(range(rows), range(size[0]), range(size[1])):
        first = row // (rows // layer.groups) * per
        seen = x[
            :, first : first + per, i * s : i * s + d * (kh - 1) + 1 : d, j * s : j * s + d * (kw - 1) + 1 : d
        ]
        sums = (seen * whole[row]).sum((1, 2, 3)) + bias[row]
        real = sums * (scale[row] * before.scale) / grid.scale
        out[:, row, i, j] = np.clip(np.rint(real), grid.low, grid.high)
    return out


@pytest.mark.parametrize(
    "make",
    [
        lambda: nn.Conv2d(4, 6, 3, padding=1),
        lambda: nn.Conv2d(4, 8, 3, stride=2, groups=2, padding=1),
        lambda: nn.Conv2d(6, 6, 5, padding=2, groups=6),
        lambda: nn.Conv2d(4, 6, 1),
        lambda: nn.Conv2d(4, 6, 3, padding=2, dilation=2),
    ],
)
@pytest.mark.parametrize("exact", [int8_layers.EXACT, 0])  # 0: in float64
def test_a_convolution_is_that_of_integers(
    make: Callable[[], nn.Conv2d], exact: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(int8_layers, "EXACT", exact)
    layer = seeded(make)
    grid = Grid(0.07, -120, 135)
    x = steps(A, 2, layer.in_channels, 7, 6)
    found = Int8Product(layer, A, grid)
    assert found.dtype == (torch.float64 if exact == 0 else torch.float32)
    y = found(x)
    assert y.dtype == torch.float32
    assert np.array_equal(y.numpy(), by_hand(layer, x.numpy(), A, grid))
    assert y.unique().numel() > 20


def test_a_linear_layer_is_a_convolution_of_one_place() -> None:
    linear = seeded(lambda: nn.Linear(20, 7))
    conv = nn.Conv2d(20, 7, 1)
    with torch.no_grad():
        conv.weight.copy_(linear.weight.view(7, 20, 1, 1))
        conv.bias.copy_(linear.bias)
    x, grid = steps(B, 3, 20), Grid(0.02, -128, 127)
    expected = by_hand(conv, x.numpy()[..., None, None], B, grid)[..., 0, 0]
    assert np.array_equal(Int8Product(linear, B, grid)(x).numpy(), expected)


def test_sums_that_float32_cannot_hold_are_computed_in_float64_and_stay_exact() -> None:
    layer = nn.Conv2d(600, 1, 1, bias=False)
    with torch.no_grad():
        layer.weight.fill_(1.0)
    found = Int8Product(layer, B, Grid(1.0, 0, 255))
    assert most_sum(found.weight, B) == 600 * 127 * 255 > int8_layers.EXACT
    assert found.dtype == torch.float64
    x = torch.full((1, 600, 1, 1), 255.0)
    x[0, 0] = 254
    assert found.accumulated(x).item() == 599 * 127 * 255 + 127 * 254
    assert most_sum(found.weight[:, :500], B) < int8_layers.EXACT


def test_the_order_of_a_sum_does_not_matter() -> None:
    layer = seeded(lambda: nn.Conv2d(64, 3, 3))
    x, order = steps(A, 2, 64, 5, 5), torch.randperm(64, generator=torch.Generator().manual_seed(1))
    found = Int8Product(layer, A, OUT)
    first = found(x)
    found.weight = found.weight[:, order].contiguous(memory_format=torch.channels_last)
    assert torch.equal(found(x[:, order]), first)


def whole(numbers: np.ndarray, grid: Grid) -> np.ndarray:
    return np.clip(np.rint(numbers), grid.low, grid.high)


def same(layer: Int8Layer, inputs: tuple[Tensor, ...], expected: np.ndarray) -> bool:
    """Return whether a layer gives what is expected, its inputs left as they were."""
    before = [one.clone() for one in inputs]
    found = layer(*inputs)
    assert all(map(torch.equal, before, inputs))
    assert found.dtype == torch.float32
    return bool(np.array_equal(found.numpy(), expected))


def test_sums_products_and_joins() -> None:
    a, b = steps(A, 2, 3, 4, 4), steps(B, 2, 3, 4, 4, seed=1)
    x, y = a.numpy().astype(np.float64), b.numpy().astype(np.float64)
    ma, mb = np.float32(A.scale / OUT.scale), np.float32(B.scale / OUT.scale)
    pa, pb = (x.astype(np.float32) * ma), (y.astype(np.float32) * mb)
    assert same(Int8Sum([A, B], OUT), (a, b), whole(pa + pb, OUT))
    assert same(Int8Joined([A, B], OUT, 1), (a, b), whole(np.concatenate([pa, pb], 1), OUT))
    times = np.float32(A.scale * B.scale / OUT.scale)
    assert same(Int8Times(A, B, OUT), (a, b), whole((x * y).astype(np.float32) * times, OUT))


def test_tables_pools_and_the_ways_in_and_out() -> None:
    a = steps(A, 2, 3, 4, 4)
    real = a.numpy().astype(np.float64) * A.scale
    swish = real * np.clip(real + 3, 0, 6) / 6
    assert same(Int8Table(F.hardswish, A, OUT), (a,), whole(swish / OUT.scale, OUT))
    means = a.numpy().reshape(2, 3, 2, 2, 2, 2).mean((3, 5))
    assert same(Int8Pool(nn.AvgPool2d(2), A), (a,), whole(means, A))
    assert same(ToInt8(A), (a * 0.5 + 0.1,), a.numpy())
    assert torch.equal(ToFloat32(A)(a), a * 0.5)


def test_what_decides_a_layers_numbers_is_in_its_text() -> None:
    conv = seeded(lambda: nn.Conv2d(4, 4, 3, stride=2))
    texts = {
        str(Int8Product(conv, A, OUT)), str(Int8Product(conv, A, A)), str(Int8Sum([A, B], OUT)),
        str(Int8Sum([A, A], OUT)), str(Int8Joined([A, B], OUT, 1)), str(Int8Joined([A, B], OUT, 2)),
        str(Int8Times(A, B, OUT)), str(Int8Times(A, A, OUT)), str(Int8Pool(nn.AvgPool2d(2), A)),
        str(Int8Pool(nn.AvgPool2d(3), A)), str(ToInt8(A)), str(ToInt8(OUT)),
    }  # fmt: skip
    assert len(texts) == 12
    assert "'stride': (2, 2)" in str(Int8Product(conv, A, OUT))
