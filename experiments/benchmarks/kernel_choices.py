"""Two or more ways to the same result, side by side: what the sizes in `fed_asi/layers/thresholds.py` were chosen by.

    python experiments/benchmarks/kernel_choices.py [depthwise masks space channels forward orth] [--seconds 0.5]

A row is one case: microseconds of each way, the lower quartile of interleaved calls in one process with one thread. The
first way is the one that a simulated step takes there. Inputs have their channels last.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import Tensor

from fed_asi import tucker
from fed_asi.layers import depthwise, masks
from fed_asi.layers.fused import Clamp
from fed_asi.layers.geometry import Geometry

Ways = dict[str, Callable[[], object]]
BACKWARD = torch.ops.aten.convolution_backward.default
# Channels, kernel, stride, pixels a side: the depthwise layers of MCUNet's and MobileNetV2's last 14 at 128x128.
DEPTHWISE = ((384, 5, 1, 4), (240, 7, 2, 8), (192, 3, 1, 8), (576, 3, 1, 4), (960, 3, 1, 4))
# Micro-batches side by side, samples of each, channels, pixels a side.
INPUTS = ((16, 1, 384, 4), (4, 4, 384, 4), (1, 16, 384, 4), (4, 4, 192, 8), (1, 1, 384, 4))


def images(*shape: int) -> Tensor:
    """Return random images, channels last."""
    return torch.randn(*shape).contiguous(memory_format=torch.channels_last)


def geometry(channels: int, kernel: int, stride: int) -> Geometry:
    """Return a depthwise convolution's geometry."""
    half = kernel // 2
    return Geometry((kernel,) * 2, (stride,) * 2, (half,) * 2, (1, 1), False, (0, 0), channels)


def depthwise_rows() -> Iterator[tuple[str, Ways]]:
    """Yield dW of depthwise layers: matrix products, and torch's kernel."""
    for channels, kernel, stride, side in DEPTHWISE:
        q, out = geometry(channels, kernel, stride), -(-side // stride)
        weight = torch.randn(channels, 1, kernel, kernel)
        rest = (None, q.stride, q.padding, q.dilation, False, (0, 0), channels, [False, True, False])
        for samples in (1, 4, 16, 32):
            x, g = images(samples, channels, side, side), images(samples, channels, out, out)
            ways: Ways = {
                "products": partial(depthwise.weight_gradient, x, g, q),
                "torch": partial(BACKWARD, g, x, weight, *rest),
            }
            if not depthwise.fits(x, g, q):
                ways = dict(reversed(ways.items()))
            yield f"dW {kernel}x{kernel}/{stride}, {channels} channels {side}x{side}, {samples} samples", ways


def forward_rows() -> Iterator[tuple[str, Ways]]:
    """Yield depthwise layers' outputs: torch's kernel, and a matrix of input by output pixels for each channel."""
    for channels, kernel, stride, side in DEPTHWISE:
        q, out = geometry(channels, kernel, stride), -(-side // stride)
        weight, joined = torch.randn(channels, 1, kernel, kernel), _taps(q, side, out)
        for samples in (1, 16):
            x = images(samples, channels, side, side)
            conv = partial(torch.conv2d, x, weight, None, q.stride, q.padding, 1, channels)
            ways: Ways = {"torch": conv, "products": partial(_as_products, x, weight, joined, out)}
            torch.testing.assert_close(_as_products(x, weight, joined, out), conv(), atol=1e-4, rtol=1e-4)
            yield f"z {kernel}x{kernel}/{stride}, {channels} channels {side}x{side}, {samples} samples", ways


def _taps(q: Geometry, side: int, out: int) -> Tensor:
    """Return (taps, pairs of pixels), 1 where a tap connects the two: the response to one-hot kernels."""
    taps = q.kernel[0] ** 2
    ones = torch.eye(side * side).view(-1, 1, side, side)
    kernels = torch.eye(taps).view(taps, 1, *q.kernel)
    seen = torch.conv2d(ones, kernels, None, q.stride, q.padding)  # (input pixels, taps, *out)
    return seen.view(side * side, taps, out * out).transpose(0, 1).reshape(taps, -1)


def _as_products(x: Tensor, weight: Tensor, joined: Tensor, out: int) -> Tensor:
    samples, channels = x.shape[:2]
    pixels = (weight.view(channels, -1) @ joined).view(channels, -1, out * out)
    rows = x.permute(0, 2, 3, 1).reshape(-1, channels).mT.contiguous().view(channels, samples, -1)
    z = torch.bmm(rows, pixels).view(channels, -1).mT.contiguous()
    return z.view(samples, out, out, channels).permute(0, 3, 1, 2)


def mask_rows() -> Iterator[tuple[str, Ways]]:
    """Yield packing a mask: all at once, and plane by plane from some size on."""
    clamp = Clamp(0.0, 6.0)
    for numel in (49152, 98304, 147456, 245760, 983040):
        y = torch.randn(numel).clamp_(0, 6)
        yield (
            f"mask of {numel} elements",
            {
                "at once": lambda y=y: masks.pack(clamp.open(y)),
                "by planes": lambda y=y: masks.pack_open(y, clamp.open),
            },
        )


def space_rows() -> Iterator[tuple[str, Ways]]:
    """Yield the spatial bases of a channel-cut input at rank 3: one mode after the other, and both from one Gram."""
    for many, samples, _, side in INPUTS:
        x, starts = torch.randn(many, 8, samples, side, side), torch.randn(2, side, 3)
        select = _selecting(side)
        ways: Ways = {"in turns": partial(_in_turns, x, starts), "both": partial(_both, x, starts, select)}
        yield f"space {side}x{side}, {many} micro-batches of {samples}", ways


def _in_turns(x: Tensor, starts: Tensor) -> Tensor:
    x = x.transpose(-1, -2)
    for start in starts:
        rows = x.reshape(len(x), -1, x.shape[-1])
        gram = torch.bmm(rows.mT, rows)
        factor = tucker.orth(torch.bmm(gram, start.expand(len(x), -1, -1)))
        x = torch.bmm(factor.mT, rows.mT).view(len(x), 3, *x.shape[1:-1])
    return x


def _both(x: Tensor, starts: Tensor, select: Tensor) -> Tensor:
    many, side = len(x), x.shape[-1]
    pixels = x.reshape(many, -1, side * side)
    gram = torch.bmm(pixels.mT, pixels)
    grams = torch.mm(gram.view(many, -1), select).view(many, 2, side, side)
    found = tucker.orth(torch.matmul(grams, starts))
    both = found[:, 0].reshape(many, side, 1, 3, 1) * found[:, 1].reshape(many, 1, side, 1, 3)
    return torch.bmm(pixels, both.view(many, side * side, 9))


def _selecting(side: int) -> Tensor:
    """Return what sums the Gram matrix of pixels over equal columns, and over equal rows."""
    one, pixel = torch.eye(side), torch.eye(side * side).view(side, side, side, side)
    high = torch.einsum("hkab,wv->hwkvab", pixel, one)
    wide = torch.einsum("wvab,hk->hwkvab", pixel, one)
    return torch.cat([part.reshape(side**4, -1) for part in (high, wide)], 1)


def channel_rows() -> Iterator[tuple[str, Ways]]:
    """Yield the channels' basis at rank 8: a QR of C rows, a Gram matrix of the pixels, one product for all starts."""
    for many, samples, channels, side in INPUTS:
        rows, start = torch.randn(many, samples * side * side, channels), torch.randn(channels, 8)
        ways: Ways = {
            "by channels": partial(_by_channels, rows, start),
            "by pixels": partial(_by_pixels, rows, start),
            "one start": partial(_one_start, rows, start),
        }
        if tucker.few_pixels((samples, side, side, channels), 8, 1):
            ways = {name: ways[name] for name in ("by pixels", "by channels", "one start")}
        yield f"{channels} channels {side}x{side}, {many} micro-batches of {samples}", ways


def _by_channels(rows: Tensor, start: Tensor) -> Tensor:
    thin = torch.bmm(start.mT.expand(len(rows), -1, -1), rows.mT)
    return torch.bmm(tucker.orth(torch.bmm(thin, rows).mT).mT, rows.mT)


def _one_start(rows: Tensor, start: Tensor) -> Tensor:
    thin = torch.mm(start.mT, rows.flatten(0, 1).mT).view(8, len(rows), -1).transpose(0, 1)
    return torch.bmm(tucker.orth(torch.bmm(thin, rows).mT).mT, rows.mT)


def _by_pixels(rows: Tensor, start: Tensor) -> Tensor:
    thin = torch.bmm(start.mT.expand(len(rows), -1, -1), rows.mT)
    basis = tucker.orth(torch.bmm(thin, torch.bmm(rows, rows.mT)).mT)
    found = torch.bmm(basis.mT, rows)
    return found / torch.linalg.vector_norm(found, dim=-1, keepdim=True)


def orth_rows() -> Iterator[tuple[str, Ways]]:
    """Yield orthonormal columns: a QR, and one round of Cholesky, which loses orthogonality where columns are alike."""
    for many in (1, 4, 16):
        for d, rank in ((384, 8), (16, 8), (4, 3)):
            v = torch.randn(many, d, rank)
            ways: Ways = {"qr": partial(tucker.orth, v), "cholesky": partial(_cholesky, v)}
            yield f"{many} bases of {d}x{rank}", ways


def _cholesky(v: Tensor) -> Tensor:
    lower = torch.linalg.cholesky_ex(torch.bmm(v.mT, v))[0]
    found: Tensor = torch.linalg.solve_triangular(lower, v.mT, upper=False).mT
    return found


PARTS = {
    "depthwise": depthwise_rows,
    "masks": mask_rows,
    "space": space_rows,
    "channels": channel_rows,
    "forward": forward_rows,
    "orth": orth_rows,
}


def measured(ways: Ways, seconds: float) -> dict[str, float]:
    """Return the lower quartile of microseconds of each way, interleaved."""
    taken: dict[str, list[float]] = {name: [] for name in ways}
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(taken[next(iter(taken))]) < 8:
        for name, way in ways.items():
            began = time.perf_counter()
            way()
            taken[name].append((time.perf_counter() - began) * 1e6)
    return {name: sorted(values)[len(values) // 4] for name, values in taken.items()}


def main() -> None:
    """Print a row for each case, as Markdown."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("parts", nargs="*", metavar="PART", help=", ".join(PARTS))
    parser.add_argument("--seconds", type=float, default=0.5, help="about how long each row is measured")
    given = parser.parse_args()
    torch.set_num_threads(1)
    for part in given.parts or PARTS:
        print(f"\n| {part} | microseconds |\n|---|---|")
        for name, ways in PARTS[part]():
            found = measured(ways, given.seconds)
            print(
                f"| {name} | " + ", ".join(f"{way} {us:.0f}" for way, us in found.items()) + " |", flush=True
            )


if __name__ == "__main__":
    main()
