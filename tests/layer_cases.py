"""Plain layers in every geometry, and the methods to hold them to: what test_conformance.py and test_tucker.py draw from."""

from __future__ import annotations

from dataclasses import dataclass
from math import gcd
from typing import Any

import torch
from hypothesis import strategies as st
from torch import nn

from fed_asi.methods import ASI, HOSVD, FixedSubspace, Method, Quantized, Vanilla

CONVS = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
NORMS = {1: nn.BatchNorm1d, 2: nn.BatchNorm2d, 3: nn.BatchNorm3d}


@dataclass
class ConvCase:
    """A convolution in some geometry, an input that fits it, a method and how it is used."""

    dims: int
    transposed: bool
    options: dict[str, Any]
    shape: tuple[int, ...]
    method: Method
    micro_batch: int | None
    channels_last: bool
    input_grad: bool
    weight_grad: bool
    norm: bool
    act: str
    seed: int

    def layer(self) -> nn.Module:
        """Return the convolution, float64, of its own seeded weights."""
        generator = torch.Generator().manual_seed(self.seed)
        made = (nn.ConvTranspose2d if self.transposed else CONVS[self.dims])(**self.options).double()
        for parameter in made.parameters():
            parameter.data.normal_(generator=generator)
        made.weight.requires_grad_(self.weight_grad)
        return made

    def fused(self) -> list[nn.Module]:
        """Return the norm and activation behind it."""
        generator = torch.Generator().manual_seed(self.seed + 1)
        found: list[nn.Module] = []
        if self.norm:
            norm = NORMS[self.dims](self.options["out_channels"]).double().eval()
            for tensor in (norm.weight.data, norm.bias.data, norm.running_mean):
                tensor.normal_(generator=generator)
            norm.running_var.uniform_(0.5, 2.0, generator=generator)
            norm.weight.requires_grad_(self.weight_grad)
            found.append(norm)
        acts = {
            "relu": nn.ReLU(),
            "relu6": nn.ReLU6(),
            "leaky": nn.LeakyReLU(0.1),
            "tanh": nn.Hardtanh(-0.5, 2),
        }
        return [*found, acts[self.act]] if self.act else found

    def input(self) -> torch.Tensor:
        """Return an input in the case's layout."""
        x = torch.randn(
            self.shape, generator=torch.Generator().manual_seed(self.seed + 2), dtype=torch.double
        )
        x = x + 0.5
        if self.channels_last and self.dims > 1:
            x = x.to(memory_format=torch.channels_last if self.dims == 2 else torch.channels_last_3d)
        return x


@st.composite
def methods(draw: st.DrawFn, shape: tuple[int, ...]) -> Method:
    """Methods that keep an input of `shape`: (B, C, *S)."""
    ranks = st.tuples(st.integers(1, shape[0] + 2), *[st.integers(1, d) for d in shape[1:]])
    return draw(
        st.one_of(
            st.just(Vanilla()),
            st.builds(Quantized, bits=st.sampled_from([4, 8])),
            st.builds(
                ASI,
                ranks=ranks,
                order=st.sampled_from(["sequential", "published"]),
                bits=st.sampled_from([8, 32]),
            ),
            st.builds(ASI, ranks=ranks),
            st.builds(HOSVD, epsilon=st.floats(0.3, 1.0)),
            st.builds(FixedSubspace, epsilon=st.floats(0.3, 1.0)),
        )
    )


@st.composite
def conv_cases(draw: st.DrawFn) -> ConvCase:
    """Convolutions in every geometry torch accepts, small enough to be quick."""
    dims = draw(st.sampled_from([2, 2, 2, 2, 1, 3]))
    transposed = dims == 2 and draw(st.integers(0, 7)) == 0
    c_in, c_out = draw(st.integers(1, 6)), draw(st.integers(1, 4))
    groups = draw(st.sampled_from([g for g in range(1, c_in + 1) if c_in % g == 0]))
    c_out *= groups // gcd(groups, c_out)
    each = lambda low, high: st.tuples(*[st.integers(low, high)] * dims)  # noqa: E731
    kernel = draw(each(1, 7 if dims == 2 and not transposed else 3))
    stride, dilation = draw(each(1, 3)), draw(each(1, 2))
    options: dict[str, Any] = {
        "in_channels": c_in, "out_channels": c_out, "kernel_size": kernel, "stride": stride,
        "dilation": dilation, "groups": groups, "bias": draw(st.booleans()),
    }  # fmt: skip
    if transposed:
        options["padding"] = tuple(
            min(p, d * (k - 1)) for p, d, k in zip(draw(each(0, 2)), dilation, kernel, strict=True)
        )
        options["output_padding"] = tuple(max(0, min(s - 1, 1)) for s in stride)
        size = draw(each(2, 5))
    else:
        padding = draw(st.one_of(each(0, 3), st.integers(0, 2), st.sampled_from(["same", "valid"])))
        if padding == "same":
            options["stride"] = (1,) * dims
        mode = draw(st.sampled_from(["zeros", "zeros", "reflect", "circular", "replicate"]))
        options |= {"padding": padding, "padding_mode": mode}
        reach = [d * (k - 1) + 1 for d, k in zip(dilation, kernel, strict=True)]
        widest = max(
            [
                1,
                *(
                    padding
                    if isinstance(padding, tuple)
                    else [padding if padding not in ("same", "valid") else max(reach)]
                ),
            ]
        )
        size = tuple(max(r, widest + 1) + extra for r, extra in zip(reach, draw(each(0, 3)), strict=True))
    shape = (draw(st.integers(1, 5)), c_in, *size)
    return ConvCase(
        dims=dims, transposed=transposed, options=options, shape=shape, method=draw(methods(shape)),
        micro_batch=draw(st.sampled_from([None, None, 1, 2, 3])), channels_last=draw(st.booleans()),
        input_grad=draw(st.booleans()), weight_grad=draw(st.sampled_from([True, True, True, False])),
        norm=draw(st.booleans()), act=draw(st.sampled_from(["", "", "relu", "relu6", "leaky", "tanh"])),
        seed=draw(st.integers(0, 2**20)),
    )  # fmt: skip
