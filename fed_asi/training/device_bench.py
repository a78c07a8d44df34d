"""Where plans of whole devices are measured on a user's own network."""

from __future__ import annotations

from collections.abc import Collection

import torch
from torch import Tensor, nn

from fed_asi.compression import cut
from fed_asi.compression.by_channels import TrunkBy, as_it_runs
from fed_asi.fleets.config import TrainConfig
from fed_asi.layers.copying import copied
from fed_asi.memory.stored import Format, TrainedFormat
from fed_asi.planning.bench import Bench
from fed_asi.training.rules import rules_of
from fed_asi.training.steps import Update, training_mode_


def device_bench(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    trained: Collection[str],
    *,
    update: Update = "step",
    momentum: float = 0.0,
    clip_norm: float | None = 2.0,
    storage: Format = "float32",
    trained_as: TrainedFormat = "float32",
    trunk_by: TrunkBy = "layer",
    copies: int = 0,
) -> Bench:
    """Return a bench on which a network's steps are traced for plans of RAM and flash; the network is only read.

    x: (b, C, H, W), y: (b,), a batch; plans may split it into micro-batches. trained: names of all layers or parameters
    that a plan may train; the frozen layers before them are the trunk, whose batch norms are folded. update: when
    weights move, "step", "micro-batch" or "layer". storage: format of what is only read, and of the trunk's
    activations. trained_as: format in RAM of what is trained. trunk_by: "channel" runs the trunk's depthwise
    convolutions by channels (`compression.by_channels`). copies: of the trained tensors, for a strategy and a codec.
    Errors: as of `compression.cut.cut` and `arena`.
    """
    network = copied(model).eval()
    trunk, tail = cut.cut(network, trained, x[:1])
    training_mode_(tail)
    train = TrainConfig(momentum=momentum, clip_norm=clip_norm, update=update)
    with torch.no_grad():
        return Bench(
            tail,
            x,
            y,
            rules_of(train, len(x)),
            trunk=as_it_runs(trunk, trunk_by),
            copies=copies,
            storage=storage,
            trained_as=trained_as,
            update=update,
        )
