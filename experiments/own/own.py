"""A network, images, a method and a strategy of your own, as experiments/own/fleet.toml names them."""

from dataclasses import dataclass
from math import prod
from typing import ClassVar

import numpy as np
import torch
from torch import nn

from fed_asi.data import from_samples
from fed_asi.methods import Method
from fed_asi.methods.forms import Kept
from fed_asi.strategies import Combined, Strategy

SHAPES = ("disc", "ring", "square", "cross")


def network(num_classes, resolution, seed):
    """Return three convolutions and a classifier."""
    steps = [(3, 16, 2), (16, 32, 2), (32, 32, 1)]
    convs = [(nn.Conv2d(a, b, 3, stride, padding=1), nn.BatchNorm2d(b), nn.ReLU()) for a, b, stride in steps]
    flat = (nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, num_classes))
    return nn.Sequential(*(layer for three in convs for layer in three), *flat)


def drawn(count, seed):
    """Yield noisy images with one shape each, (16, 16, 3) of uint8, and the class of that shape."""
    rng = np.random.default_rng(seed)
    for index in range(count):
        y, x = np.mgrid[0:16, 0:16] - rng.uniform(6, 10, (2, 1, 1))
        size, far, near = rng.uniform(3, 6), np.maximum(abs(x), abs(y)), np.minimum(abs(x), abs(y))
        inside = np.hypot(x, y) < size, abs(np.hypot(x, y) - size) < 1, far < size, (near < 1) & (far < size)
        label = index % len(SHAPES)
        image = 90 + 80 * inside[label][..., None] + rng.normal(0, 45, (16, 16, 3))
        yield image.clip(0, 255).astype(np.uint8), label


def images(folder, size):
    """Return the data set."""
    return from_samples("shapes", drawn(800, 1), drawn(200, 2), SHAPES)


@dataclass(slots=True)
class LargestKept(Kept):
    """The largest numbers of each sample, and their positions."""

    shape: tuple[int, ...] = ()

    def restore(self):
        """Return the input, with zeros for what was not kept."""
        values, places = self.tensors
        flat = values.new_zeros(len(values), prod(self.shape[1:]))
        return flat.scatter(1, places.long(), values).reshape(self.shape)


@dataclass(frozen=True, slots=True)
class Largest(Method):
    """A share of each sample's numbers, those with the largest magnitude; a plan chooses the share for each layer."""

    kind: ClassVar[str] = "largest"
    share: float = 0.5

    def form(self, x, keeper):
        """Return what is kept of an input (N, C, *S)."""
        flat = x.flatten(1)
        places = flat.abs().topk(self._count(x.shape), dim=1).indices
        return LargestKept((flat.gather(1, places), places.to(torch.int32)), tuple(x.shape))

    def kept_bytes(self, dims, dtype):
        """Return the bytes kept: a value and a position for each number."""
        return dims[0] * self._count(dims) * (dtype.itemsize + 4)

    def published_bytes(self, size, ranks=(), element_bytes=4):
        """Return the same bytes, for tables."""
        return size.dims[0] * self._count(size.dims) * (element_bytes + 4)

    def _count(self, dims):
        return max(1, int(self.share * prod(dims[1:])))

    @classmethod
    def propose(cls, seen):
        """Yield the forms that a plan may choose from."""
        yield from ((cls(share), None) for share in (0.5, 0.25, 0.1, 0.05, 0.02))


@dataclass(frozen=True, slots=True)
class SameLength(Strategy):
    """The mean of all devices' moves, each first scaled to the median length times `gain`."""

    name: ClassVar[str] = "same-length"
    weighs: ClassVar[bool] = False
    gain: float = 1.0

    def combine(self, given, state):
        """Return the result of a round."""

        def moved(places, now):
            moves = torch.stack([(values.double() - now).flatten() for _, _, values in places.said])
            lengths = moves.norm(dim=1, keepdim=True)
            mean = (moves * (lengths.median() / lengths.clamp_min(1e-12))).mean(dim=0)
            return now + self.gain * mean.reshape(now.shape)

        return Combined(given.combined(moved), state)
