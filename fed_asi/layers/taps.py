"""Convolutions of maps smaller than their kernel: the taps that only ever read padding are left out.

A 3x3 kernel on a map of one pixel uses one tap in nine, and dW of the others is zero. torch computes with all of them:
in ResNet18's last stage, at 32x32 images, that is a third of the whole step.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import product
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from fed_asi.layers.convolution import Convolution, output_size, variant_for
from fed_asi.layers.geometry import Geometry
from fed_asi.layers.gradient import WeightGradient
from fed_asi.layers.operation import WholeGradient
from fed_asi.methods import Method
from fed_asi.methods.forms import Kept, TuckerInput

Places = tuple[slice, ...]  # of the taps, along each axis; in a weight, behind those of all channels


@dataclass(frozen=True, slots=True)
class OnePixel(Convolution):
    """A convolution whose kernel covers the whole map: one output pixel, a product of two matrices on CPU."""

    def forward(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """Return z."""
        if not x.is_cpu:
            return Convolution.forward(self, x, weight, bias)
        z = torch.nn.functional.linear(_rows(x), _rows(weight), bias)
        return z.view(*z.shape, *self._one)

    def input_gradient(self, g: Tensor, weight: Tensor, shape: torch.Size) -> Tensor:
        """Return dX, exact, of shape `shape`."""
        if not g.is_cpu:
            return Convolution.input_gradient(self, g, weight, shape)
        last = (shape[0], *shape[2:], shape[1])
        return (g.flatten(1) @ _rows(weight)).view(last).movedim(-1, 1)

    def gradient_of(self, x: Tensor, g: Tensor, weight: Tensor) -> Tensor:
        """Return dW for the input x."""
        if not g.is_cpu:
            return Convolution.gradient_of(self, x, g, weight)
        last = (weight.shape[0], *weight.shape[2:], weight.shape[1])
        return (g.flatten(1).mT @ _rows(x.to(g.dtype))).view(last).movedim(-1, 1)

    @property
    def _one(self) -> tuple[int, ...]:
        return (1,) * len(self.geometry.kernel)


def _rows(x: Tensor) -> Tensor:
    """Return x: (N, C, *K) as (N, K C): copied channel by channel, so that no loop is as short as a row of a kernel."""
    return x.movedim(1, -1).flatten(1).contiguous()


@dataclass(frozen=True, slots=True)
class SomeTaps(Convolution):
    """A convolution that uses only some taps of its kernel. inner: the convolution of these taps alone."""

    inner: Convolution
    places: Places

    def forward(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """Return z."""
        return self.inner.forward(x, weight[self.places], bias)

    def input_gradient(self, g: Tensor, weight: Tensor, shape: torch.Size) -> Tensor:
        """Return dX, exact, of shape `shape`."""
        return self.inner.input_gradient(g, weight[self.places], shape)

    def gradient(self, kept: Kept, g: Tensor, weight: Tensor, *, thin: bool, own: bool) -> WeightGradient:
        """See Operation; that of a Tucker form is computed as for any other convolution."""
        if isinstance(kept, TuckerInput):
            return Convolution.gradient(self, kept, g, weight, thin=thin, own=own)
        found = self.inner.gradient_of(kept.restore(), g, weight[self.places])
        return TapsGradient(WholeGradient(self.inner, found), self.places, weight)

    def gradient_of(self, x: Tensor, g: Tensor, weight: Tensor) -> Tensor:
        """Return dW for the input x."""
        found = self.inner.gradient_of(x, g, weight[self.places])
        return TapsGradient(WholeGradient(self.inner, found), self.places, weight).whole()


@dataclass(slots=True)
class TapsGradient(WeightGradient):
    """dW that is zero but for some taps. inner: dW of these. weight: the whole weight, for its shape."""

    sparse: ClassVar[bool] = True
    inner: WholeGradient
    places: Places
    weight: Tensor

    def products(self, weight: Tensor) -> Tensor:
        """See WeightGradient."""
        return torch.stack([(one * other).sum(1) for one, other in self._by_tap(weight)]).sum(0)

    def scale_(self, scale: Tensor) -> None:
        """See WeightGradient."""
        self.inner.scale_(scale)

    def multiply_(self, factor: Tensor) -> None:
        """See WeightGradient."""
        self.inner.multiply_(factor)

    def respond(self, mean: Tensor) -> Tensor:
        """See WeightGradient."""
        return self.inner.respond(mean)

    def squared_norm(self) -> Tensor:
        """See WeightGradient."""
        return self.inner.squared_norm()

    def add_to_(self, target: Tensor, factor: float) -> None:
        """See WeightGradient."""
        for there, found in self._by_tap(target):
            there.add_(found, alpha=factor)

    def blocks(self) -> Iterator[tuple[slice, Tensor]]:
        """See WeightGradient."""
        yield slice(0, len(self.weight)), self.whole()

    def whole(self) -> Tensor:
        """Return dW in the shape of the weight, zero at the other taps."""
        found = self.inner.dw.new_zeros(self.weight.shape)
        for there, dw in self._by_tap(found):
            there.copy_(dw)
        return found

    def _by_tap(self, target: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield, tap by tap, a view of target: (C', C), and dW there; a pass over all taps would run in short loops."""
        there, dw = target[self.places], self.inner.dw
        for tap in product(*map(range, dw.shape[2:])):
            where: tuple[Any, ...] = (..., *tap)
            yield there[where], dw[where]


def convolution_for(
    geometry: Geometry, method: Method | None, shape: Sequence[int], *, quick: bool = False
) -> Convolution:
    """Return the linear map of a convolution for an input of shape `shape` under `method`. quick: see Convolution."""
    variant = variant_for(geometry, method, shape)
    if variant is not None:
        return variant
    # Depthwise and grouped kernels have paths of their own.
    if geometry.pointwise or geometry.transposed or geometry.groups > 1 or geometry.pad:
        return _of_all_taps(geometry, quick)
    return _of_reached_taps(geometry, tuple(shape[-len(geometry.kernel) :]), quick)


@lru_cache(maxsize=1024)
def _of_all_taps(geometry: Geometry, quick: bool) -> Convolution:
    return Convolution(geometry, quick=quick)


@lru_cache(maxsize=256)
def _of_reached_taps(geometry: Geometry, size: tuple[int, ...], quick: bool) -> Convolution:
    """Return the convolution of a map of this size, with no more taps than read a pixel of it."""
    reached = _reached(geometry, size)
    if reached is None:
        return _of_all_taps(geometry, quick)
    places = (slice(None), slice(None), *reached.places)
    one_pixel = reached.geometry.kernel == size and not any(reached.geometry.padding)
    inner = (OnePixel if one_pixel else Convolution)(reached.geometry, quick=quick)
    return SomeTaps(geometry, inner, places, quick=quick)


class _Reached(NamedTuple):
    geometry: Geometry
    places: Places


def _reached(geometry: Geometry, size: tuple[int, ...]) -> _Reached | None:
    """Return the taps that read a pixel, and their geometry; None where all do, or others cannot be left out."""
    out = output_size((1, 1, *size), geometry)
    places = tuple(_taps(geometry, axis, size[axis], out[axis]) for axis in range(len(size)))
    kernel = tuple(place.stop - place.start for place in places)
    every = zip(geometry.padding, geometry.dilation, places, strict=True)
    padding = tuple(p - d * place.start for p, d, place in every)
    if kernel == geometry.kernel or min(kernel) < 1 or min(padding) < 0:
        return None
    found = replace(geometry, kernel=kernel, padding=padding)
    return _Reached(found, places) if output_size((1, 1, *size), found) == out else None


def _taps(geometry: Geometry, axis: int, size: int, out: int) -> slice:
    """Return the range of a kernel's taps along one axis, from the first to the last that reads a pixel."""
    start, step = -geometry.padding[axis], geometry.stride[axis]
    reads = [
        tap
        for tap in range(geometry.kernel[axis])
        if any(0 <= start + step * o + geometry.dilation[axis] * tap < size for o in range(out))
    ]
    return slice(reads[0], reads[-1] + 1) if reads else slice(0, 0)
