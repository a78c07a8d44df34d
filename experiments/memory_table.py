"""What a step really keeps, plain PyTorch against ours, measured by the meter.

    python experiments/memory_table.py --data-dir FOLDER --weights-dir FOLDER > docs/results/memory_table.md

MCUNet: ImageNet weights, CIFAR-10 images at 128x128, batch 128, ranks of HOSVD at 0.8 on those images.
MobileNetV2, ResNet18: 224x224, batch 64, random weights. Their ranks are a stand-in: proportional to the dimensions,
such that the Tucker forms take the bytes that the poster prints for HOSVD 0.8 on ImageNet.
"""

from __future__ import annotations

import argparse
import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_eval

from fed_asi import compress_, data, layers, models, tucker, tune_last_
from fed_asi.compression.cut import cut
from fed_asi.compression.graph import analyse
from fed_asi.data.images import to_batch
from fed_asi.memory.meter import ActivationMeter
from fed_asi.methods import ASI, Method, Quantized, Vanilla

MIB = 2**20
# MiB of the Tucker forms at HOSVD 0.8, printed on the poster for batch 64 at 224x224.
POSTER = {("mobilenet_v2", 2): 0.15, ("mobilenet_v2", 4): 0.73, ("resnet18", 2): 0.97, ("resnet18", 4): 2.89}
Ranks = dict[str, tuple[int, ...]]


@dataclass(frozen=True)
class Case:
    """The tail of one network, a batch of the trunk's features, and the ranks of its last n convolutions."""

    name: str
    n: int
    model: nn.Module
    x: Tensor
    resolution: int
    ranks: Ranks
    head: str


@dataclass(frozen=True)
class Row:
    """One form: the papers' count and the saved bytes, and the relative error of dW."""

    form: str
    counted: int
    saved: int
    error: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--weights-dir", type=Path, required=True)
    parser.add_argument("--networks", nargs="+", default=["mcunet", "mobilenet_v2", "resnet18"])
    chosen = parser.parse_args()
    print(HEADING)
    for name in chosen.networks:
        for case in cases(name, chosen.data_dir, chosen.weights_dir):
            show(case, list(measure(case)))
    print(NOTES)


def cases(name: str, data_dir: Path, weights_dir: Path) -> Iterator[Case]:
    """Yield the network with its last 2 and its last 4 convolutions trained."""
    resolution, batch = (128, 128) if name == "mcunet" else (224, 64)
    weights = "imagenet" if name == "mcunet" else None
    images = data.load("cifar10", data_dir).x_train[:batch]
    x = to_batch(images, resolution, *models.normalisation(name))
    for n in (2, 4):
        model = models.build(name, 10, weights, weights_dir=weights_dir).eval()
        trained = tune_last_(model, n)
        # The frozen trunk keeps nothing, so it runs only once, and every form is measured on the tail.
        trunk, tail = cut(model, {key.rpartition(".")[0] for key in trained}, x[:1])
        with torch.no_grad():
            features = trunk.eval()(x)
        inputs = conv_inputs(tail.eval(), features)
        shapes = {key: tuple(value.shape) for key, value in inputs.items()}
        ranks = hosvd_ranks(inputs) if name == "mcunet" else stand_in_ranks(shapes, POSTER[name, n])
        yield Case(name, n, tail, features, resolution, ranks, models.head_name(model))


def conv_inputs(model: nn.Module, x: Tensor) -> dict[str, Tensor]:
    """Return the inputs of the trained convolutions."""
    found: dict[str, Tensor] = {}
    trained = {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, nn.Conv2d) and module.weight.requires_grad
    }
    handles = [
        module.register_forward_pre_hook(lambda _m, args, name=name: found.update({name: args[0].clone()}))
        for name, module in trained.items()
    ]
    with torch.no_grad():
        model(x)
    for handle in handles:
        handle.remove()
    return found


def hosvd_ranks(inputs: Mapping[str, Tensor], epsilon: float = 0.8) -> Ranks:
    """Return, for each mode, the fewest directions that hold a share epsilon of the energy."""
    ranks: Ranks = {}
    for name, x in inputs.items():
        _, factors = tucker.hosvd(x[None], epsilon)
        ranks[name] = tuple(
            d if f is None else int(f.shape[-1]) for d, f in zip(x.shape, factors, strict=True)
        )
    return ranks


def stand_in_ranks(shapes: Mapping[str, tuple[int, ...]], mib: float) -> Ranks:
    """Return ranks, the same share of every mode, whose forms take as many bytes as the poster prints."""
    low, high = 0.0, 1.0
    for _ in range(40):
        share = (low + high) / 2
        ranks = {name: tuple(max(1, round(share * d)) for d in shape) for name, shape in shapes.items()}
        size = sum(
            4 * (prod(r) + sum(d * k for d, k in zip(shapes[name], r, strict=True)))
            for name, r in ranks.items()
        )
        low, high = (share, high) if size < mib * MIB else (low, share)
    return ranks


def forms(case: Case) -> dict[str, dict[str, Method]]:
    """Return the compressed forms by name."""
    whole: dict[str, Method] = {case.head: Vanilla()}
    rough: dict[str, Method] = {case.head: Quantized(8)}

    def asi(head: dict[str, Method], **options: object) -> dict[str, Method]:
        return {name: ASI(ranks, **options) for name, ranks in case.ranks.items()} | head  # type: ignore[arg-type]

    return {
        "ours, inputs whole": dict.fromkeys(case.ranks, Vanilla()) | whole,
        "ours, inputs in 8 bits": dict.fromkeys(case.ranks, Quantized(8)) | rough,
        "ours, ASI warm": asi(whole),
        "ours, ASI": asi(whole, warm=False),
        "ours, ASI in 8 bits, head in 8 bits": asi(rough, warm=False, bits=8),
    }


def measure(case: Case) -> Iterator[Row]:
    """Yield plain PyTorch, plain PyTorch with batch norm folded, and every form of ours."""
    counted, saved, exact = step(case.model, case)
    yield Row("plain PyTorch", counted, saved, 0.0)
    counted, saved, _ = step(folded(case.model, case.n), case)
    yield Row("plain, batch norm folded", counted, saved, 0.0)
    for form, methods in forms(case).items():
        model = copy.deepcopy(case.model).train()
        for module in model.modules():
            if isinstance(module, nn.Dropout):
                module.eval()
        compress_(model, methods)
        for _ in range(3):  # warm up the factors
            counted, saved, found = step(model, case)
        yield Row(form, counted, saved, error(found, exact, case))


def step(model: nn.Module, case: Case) -> tuple[int, int, dict[str, Tensor]]:
    """Return (counted bytes, saved bytes, gradients) of one step."""
    model.zero_grad()
    with ActivationMeter(model) as meter:
        loss = F.cross_entropy(model(case.x), torch.arange(len(case.x)) % 10)
    loss.backward()
    layers.commit_factors_(model)
    grads = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    return meter.published_bytes, meter.saved_bytes, grads


def folded(model: nn.Module, n: int) -> nn.Module:
    """Return a copy whose batch norms are folded into the convolutions before them."""
    model = copy.deepcopy(model).eval()
    graph = analyse(model)
    for conv, norm in graph.norms.items():
        model.set_submodule(conv, fuse_conv_bn_eval(model.get_submodule(conv), model.get_submodule(norm)))
        model.set_submodule(norm, nn.Identity())
    tune_last_(model, n)
    return model


def error(found: Mapping[str, Tensor], exact: Mapping[str, Tensor], case: Case) -> float:
    """Return ||dW - exact dW|| / ||exact dW|| over the trained convolutions."""
    names = [f"{name}.weight" for name in case.ranks]
    off = sum((found[name] - exact[name]).square().sum() for name in names)
    return float((off / sum(exact[name].square().sum() for name in names)).sqrt())


def show(case: Case, rows: list[Row]) -> None:
    plain, fold = rows[0].saved, rows[1].saved
    size = f"{case.resolution}x{case.resolution}"
    print(f"\n### {case.name}, last {case.n} convolutions and head, batch {len(case.x)}, {size}\n")
    print("Ranks: " + ", ".join(f"`{name}` {ranks}" for name, ranks in case.ranks.items()) + "\n")
    print("| | counted, MiB | saved, MiB | times less than plain | than folded | relative dW error |")
    print("|---|---|---|---|---|---|")
    for row in rows:
        print(
            f"| {row.form} | {row.counted / MIB:.3f} | {row.saved / MIB:.3f} | {plain / row.saved:.1f} "
            f"| {fold / row.saved:.1f} | {row.error:.3f} |",
            flush=True,
        )


HEADING = """# Bytes that a training step keeps

Made by `python experiments/memory_table.py --data-dir FOLDER --weights-dir FOLDER > docs/results/memory_table.md`.

*Counted* is the papers' figure: the inputs of the trained convolutions, or their compressed forms, alone. *Saved*
is every byte that autograd and the layers keep from the forward to the backward pass, measured by `ActivationMeter`:
masks, pooled features, the loss and warm factors included. *Plain PyTorch* trains the same layers, with batch norm in
eval mode; *folded* has its batch norms folded into the convolutions."""
NOTES = """
MCUNet has ImageNet weights, CIFAR-10 images, and the ranks of HOSVD at 0.8. MobileNetV2 and ResNet18 have random
weights. Their ranks are proportional to the sizes of the modes, and chosen so that the forms take as many bytes as the
poster prints for HOSVD 0.8 on ImageNet; with random weights, their dW error says nothing about a trained network.
*Warm* keeps the last step's factors beside the new ones; the others start from scratch in every step. Weights, gradient
accumulators, optimizer state and transients are not included here: `fed_asi.memory` counts them by name.

In float32, ResNet18 stays below 30 times less than plain because of its given ranks. 30 times less would be 1.025 MiB
for two layers and 2.046 for four, and the poster's HOSVD at 0.8 alone takes 0.855 and 2.767. With two layers, 0.383 MiB
of masks (1 bit per element of two ReLUs) and 0.125 of pooled features are added to the Tucker forms; keeping nothing
for the head would give 24.9 times. With four layers the forms alone exceed the limit. In 8 bits, at the same ranks and
the same dW error, the factors are 48.5 and 46.9."""

if __name__ == "__main__":
    main()
