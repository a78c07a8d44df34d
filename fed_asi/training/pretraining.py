"""Training on the server's public split: a network without pretrained weights, or the new head of one with them."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fed_asi import seeds
from fed_asi.compression.cut import cut
from fed_asi.compression.tune import tune_last_
from fed_asi.errors import ConfigError
from fed_asi.fleets.config import PretrainConfig
from fed_asi.gpus import sent
from fed_asi.training.sgd import Sgd

Report = Callable[[int, float], None]


def pretrain_(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    settings: PretrainConfig,
    *,
    seed: int,
    report: Report | None = None,
) -> float:
    """Train all of `model` in place, batch norm included, and return the mean loss of the last epoch.

    x: (N, 3, H, W) normalised images. y: (N,) classes. Both on the network's device.
    report: called with (epoch from 1, mean loss).
    A pure function of its arguments: batches come from `seed`, the learning rate falls by a half cosine. A last batch
    of one image is skipped, as batch norm has no variance of one.
    Raises ConfigError where every batch has one image, or where the loss becomes NaN or infinite.
    """
    if min(len(y), settings.batch_size) < 2:
        raise ConfigError(
            f"pretraining on {len(y)} images in batches of {settings.batch_size}: batch norm has no variance of one "
            "image; use 2 or more of both"
        )
    model.train()
    for parameter in model.parameters():
        parameter.requires_grad_(True)
    mean = _epochs_(model, x, y, settings, settings.epochs, 2, seed, report)
    model.eval()
    return mean


def pretrain_head_(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    settings: PretrainConfig,
    *,
    seed: int,
    report: Report | None = None,
) -> float:
    """Train the head of `model` in place for `settings.head_epochs`, and return the mean loss of the last epoch.

    The head is what follows the last convolution and its batch norm. Everything else stays, batch norm's statistics
    included, so it runs once over the images. x, y, report and errors: as of `pretrain_`.
    """
    trunk, head = cut(model, tune_last_(model, 0), x[:1], latest=True)
    with torch.no_grad():
        inputs = torch.cat([trunk(rows) for rows in torch.split(x, settings.batch_size)])
    return _epochs_(head.eval(), inputs, y, settings, settings.head_epochs, 1, seed, report)


def _epochs_(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    settings: PretrainConfig,
    epochs: int,
    smallest: int,
    seed: int,
    report: Report | None,
) -> float:
    """Return the mean loss of the last epoch; batches of fewer than `smallest` images are skipped."""
    optimizer = Sgd(model.named_parameters(), momentum=settings.momentum, weight_decay=1e-4, clip_norm=2.0)
    steps = epochs * max(1, math.ceil(len(y) / settings.batch_size))
    done, mean = 0, float("nan")
    for epoch in range(epochs):
        order = sent(torch.from_numpy(seeds.rng(seed, "pretrain", epoch).permutation(len(y))), x.device)
        total, seen = torch.zeros((), dtype=torch.float64, device=x.device), 0
        for rows in torch.split(order, settings.batch_size):
            lr = settings.lr * 0.5 * (1 + math.cos(math.pi * done / steps))
            if len(rows) >= smallest:
                total += _step_(model, optimizer, x[rows], y[rows], lr).double() * len(rows)
                seen += len(rows)
            done += 1
        mean = float(total) / seen
        if not math.isfinite(mean):
            raise ConfigError(
                f"pretrain.lr: {settings.lr} is too large: the loss of epoch {epoch + 1} is {mean}; use a smaller one"
            )
        if report is not None:
            report(epoch + 1, mean)
    return mean


def _step_(model: nn.Module, optimizer: Sgd, x: Tensor, y: Tensor, lr: float) -> Tensor:
    loss = F.cross_entropy(model(x), y)
    torch.autograd.backward(loss)
    optimizer.step_(lr)
    return loss.detach()
