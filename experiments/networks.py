"""What happens to ten different torchvision networks in tune_last_, cut, profile, plan, compress_ and one step.

python experiments/networks.py --out docs/results/networks.md
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F

from fed_asi import models
from fed_asi.compression import cut
from fed_asi.compression.compress import check_gradients, compress_
from fed_asi.compression.tune import tune_last_
from fed_asi.errors import FedAsiError
from fed_asi.memory.meter import ActivationMeter
from fed_asi.planning.calibration import profile
from fed_asi.planning.search import plan
from fed_asi.torch_private import BATCH_NORM
from fed_asi.units import format_bytes

# name -> (layers trained, resolution); transformers have one convolution, so their heads or last blocks train
NETWORKS: dict[str, tuple[int | tuple[str, ...], int]] = {
    "mobilenet_v3_small": (4, 64),
    "efficientnet_b0": (4, 64),
    "regnet_y_400mf": (4, 64),
    "shufflenet_v2_x0_5": (4, 64),
    "squeezenet1_1": (4, 64),
    "densenet121": (4, 64),
    "convnext_tiny": (2, 64),
    "vit_b_16": (("encoder.layers.encoder_layer_11.mlp.0", "encoder.layers.encoder_layer_11.mlp.3"), 64),
    "swin_t": (("features.7.1.mlp.0", "features.7.1.mlp.3"), 64),
    "mnasnet0_5": (4, 64),
}
BATCH = 4


@dataclass(frozen=True, slots=True)
class Outcome:
    """What happened to one network. Bytes are those between forward and backward pass, loss included."""

    name: str
    trained: int
    cut: str
    plain_bytes: int
    budget_bytes: int
    planned_bytes: int
    measured_bytes: int
    reason: str = ""


def attempt(name: str) -> Outcome:
    """Return what happens to a network: planned at half of plain PyTorch's bytes, compressed, and trained one step."""
    layers, resolution = NETWORKS[name]
    model = models.build(name, 10, resolution=resolution).train()
    trained = _train_(model, layers)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(BATCH, 3, resolution, resolution, generator=generator)
    y = torch.randint(10, (BATCH,), generator=generator)
    trunk, _ = cut.cut(model, trained, x)
    plain = _step(model, x, y)
    studied = profile(model, x, y, trained=trained, micro_batches=(1, 2, BATCH))
    budget = plain // 2
    found = plan(studied, budget, micro_batch=BATCH)
    compress_(model, found, seed=0)
    measured = _step(model, x, y)
    check_gradients(model)
    return Outcome(
        name, len(found.methods), cut.cut_point(trunk), plain, budget, found.planned_bytes, measured
    )


def _train_(model: nn.Module, layers: int | tuple[str, ...]) -> list[str]:
    if isinstance(layers, int):
        return tune_last_(model, layers)
    model.requires_grad_(False)
    for name in layers:
        model.get_submodule(name).requires_grad_(True)
    return [name for name, parameter in model.named_parameters() if parameter.requires_grad]


def _step(model: nn.Module, x: torch.Tensor, y: torch.Tensor) -> int:
    """Return the bytes that one step keeps; batch norms are fixed, as in all training here."""
    model.zero_grad()
    for module in model.modules():
        if isinstance(module, BATCH_NORM):
            module.eval()
    with ActivationMeter(model) as meter:
        loss = F.cross_entropy(model(x), y)
    loss.backward()
    return meter.saved_bytes


def line(found: Outcome | FedAsiError, name: str) -> str:
    """Return one line of the Markdown table."""
    if isinstance(found, FedAsiError):
        return f"| {name} | | | | | | refused: {found} |"
    sizes = (found.plain_bytes, found.budget_bytes, found.planned_bytes, found.measured_bytes)
    layers = "1 layer" if found.trained == 1 else f"{found.trained} layers"
    cells = [name, f"`{found.cut}`", *map(format_bytes, sizes), f"{layers} trained"]
    return f"| {' | '.join(cells)} |"


HEADER = (
    "| network | cut behind | plain PyTorch | budget | planned | measured | what happened |\n"
    "|---|---|---|---|---|---|---|"
)
PAGE = f"""# Ten different networks

Made by `python experiments/networks.py --out docs/results/networks.md`: batch {BATCH}, 64x64, random weights. The plan
chooses what to train from the last 4 convolutions (convnext_tiny: 2) and all layers after them, or from the two linear
layers of a transformer's last block. The budget is half of what plain PyTorch keeps between the forward and the
backward pass. "Planned" is what the plan promises, "measured" what a step of the compressed network kept. No network
needed code of its own.

"""


def main() -> int:
    """Print the table, or write the page."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path)
    parser.add_argument("networks", nargs="*", default=list(NETWORKS))
    options = parser.parse_args()
    lines = []
    for name in options.networks:
        try:
            lines.append(line(attempt(name), name))
        except FedAsiError as error:
            lines.append(line(error, name))
        print(lines[-1], flush=True)
    if options.out is not None:
        options.out.write_text(PAGE + "\n".join([HEADER, *lines]) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
