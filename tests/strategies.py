"""Hypothesis strategies: layers in every geometry that torch accepts, inputs for them, and methods."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor, nn

from fed_asi.methods import ASI, HOSVD, FixedSubspace, Method, Quantized, Vanilla


@dataclass(frozen=True)
class Case:
    """A layer, an input for it, and the gradient that comes back to its output."""

    layer: nn.Module
    x: Tensor
    g: Tensor

    def __repr__(self) -> str:
        return f"{self.layer} on {tuple(self.x.shape)} stride {self.x.stride()}"


def seeded(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    """Return Gaussian numbers that depend on the shape and seed alone."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def fill_(layer: nn.Module) -> nn.Module:
    """Give a layer's parameters seeded values, so that a failing case can be drawn again."""
    with torch.no_grad():
        for i, parameter in enumerate(layer.parameters()):
            parameter.copy_(seeded(*parameter.shape, seed=i + 7) / 3)
    return layer


def case_of(layer: nn.Module, x: Tensor) -> Case:
    """Return the case of a layer on x, with a seeded output gradient."""
    with torch.no_grad():
        return Case(layer, x, seeded(*layer(x).shape, seed=3))


@st.composite
def convolutions(draw: st.DrawFn) -> Case:
    """Conv2d in any geometry: stride, every padding, dilation, groups, multipliers, layouts."""
    groups = draw(st.sampled_from([1, 1, 2, 3, 4]))
    per_group = draw(st.integers(1, 3)) if groups < 4 else draw(st.sampled_from([1, 2]))
    channels = groups * per_group
    outputs = groups * draw(st.integers(1, 3))
    kernel = (draw(st.integers(1, 5)), draw(st.integers(1, 7)))
    mode = draw(st.sampled_from(["zeros", "zeros", "reflect", "circular", "replicate"]))
    pairs = st.tuples(st.integers(0, 2), st.integers(0, 3))
    padding: Any = draw(st.one_of(st.sampled_from(["same", "valid"]), st.integers(0, 3), pairs))
    strides = st.just(1) if padding == "same" else st.integers(1, 3)
    stride = (draw(strides), draw(strides))
    dilation = (draw(st.integers(1, 2)), draw(st.integers(1, 2)))
    reach = [d * (k - 1) + 1 for d, k in zip(dilation, kernel, strict=True)]
    height, width = (max(r, 4) + draw(st.integers(0, 3)) for r in reach)  # every padding is below the size
    batch = draw(st.integers(1, 5))
    layer = nn.Conv2d(
        channels, outputs, kernel, stride, padding, dilation, groups, draw(st.booleans()), mode,
        dtype=torch.float64,
    )  # fmt: skip
    x = seeded(batch, channels, height, width)
    if draw(st.booleans()):
        x = x.contiguous(memory_format=torch.channels_last)
    return case_of(fill_(layer), x)


@st.composite
def linears(draw: st.DrawFn) -> Case:
    """Linear on (B, F), tokens (B, N, F), or images of features (B, H, W, F)."""
    features, outputs = draw(st.integers(1, 7)), draw(st.integers(1, 5))
    middle = draw(st.sampled_from([(), (3,), (2, 4)]))
    layer = nn.Linear(features, outputs, bias=draw(st.booleans()), dtype=torch.float64)
    return case_of(fill_(layer), seeded(draw(st.integers(1, 5)), *middle, features))


def modes_of(case: Case) -> tuple[int, ...]:
    """Return the sizes of the input's modes, batch first."""
    return tuple(case.x.shape)


@st.composite
def asi(draw: st.DrawFn, modes: tuple[int, ...]) -> ASI:
    """ASI at any ranks within the modes."""
    return ASI(
        tuple(draw(st.integers(1, d)) for d in modes),
        order=draw(st.sampled_from(["sequential", "published"])),
        bits=draw(st.sampled_from([32, 32, 8])),
        centered=draw(st.booleans()),
        warm=draw(st.booleans()),
    )


@st.composite
def methods(draw: st.DrawFn, modes: tuple[int, ...]) -> Method:
    """Any method that keeps the input and gives the weight gradient of what it restores."""
    centered = draw(st.booleans())
    share = draw(st.sampled_from([0.3, 0.8, 0.99, 1.0]))
    others = [
        Vanilla(centered=centered),
        Quantized(bits=8, centered=centered),
        Quantized(bits=4, centered=centered),
        HOSVD(epsilon=share, centered=centered),
        FixedSubspace(epsilon=share, centered=centered),
    ]
    return draw(st.one_of(asi(modes), st.sampled_from(others)))
