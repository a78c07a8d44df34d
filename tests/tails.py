"""A network cut after its frozen trunk, and a micro-batch of the trunk's features for its tail."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from fed_asi import models
from fed_asi.compression.compress import compress_
from fed_asi.compression.cut import cut
from fed_asi.compression.tune import tune_last_
from fed_asi.methods import (
    ASI,
    HOSVD,
    BiasOnly,
    FixedSubspace,
    Frozen,
    GradientFilter,
    Method,
    Quantized,
    SpatialMean,
    Vanilla,
)
from fed_asi.training.steps import training_mode_

# Every method of the library, and plain PyTorch. A spatial mean needs a layer before a pool, see `pooled`.
FORMS: dict[str, Method | None] = {
    "plain PyTorch": None,
    "inputs whole": Vanilla(),
    "8 bits": Quantized(8),
    "4 bits": Quantized(4),
    "ASI, cold": ASI((1, 4, 2, 2), warm=False),
    "ASI, warm": ASI((1, 4, 2, 2)),
    "ASI, in 8 bits": ASI((1, 4, 2, 2), bits=8),
    "ASI, published": ASI((1, 4, 2, 2), order="published"),
    "HOSVD": HOSVD(0.8),
    "fixed subspace": FixedSubspace(0.7),
    "gradient filter": GradientFilter(2),
    "biases": BiasOnly(),
}


@dataclass
class Tail:
    """The trained part of a network. images go into trunk, and its features x into model."""

    trunk: nn.Module
    model: nn.Module
    images: Tensor
    x: Tensor
    y: Tensor


def tail_of(
    name: str, method: Method | None, *, batch: int = 2, size: int = 32, layers: int = 3, **changes: object
) -> Tail:
    """Return the tail of a network whose last convolutions train; random weights, ten classes."""
    model = models.build(name, 10, resolution=size).eval()
    trained = tune_last_(model, layers)
    images = torch.randn(batch, 3, size, size, generator=torch.Generator().manual_seed(0))
    trunk, tail = cut(model, {key.rpartition(".")[0] for key in trained}, images[:1])
    training_mode_(tail)
    if method is not None:
        compress_(tail, method, **changes)
    with torch.no_grad():
        features = trunk(images)
    return Tail(trunk, tail, images, features, torch.arange(batch) % 10)


def pooled() -> Tail:
    """Return a network whose only convolution is kept as a spatial mean, frozen layers around it."""
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(8, 6, 1),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(6, 10),
    )
    compress_(net.train(), {"0": Frozen(), "2": SpatialMean(), "5": Vanilla()})
    x = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    return Tail(nn.Identity(), net, x, x, torch.arange(2))
