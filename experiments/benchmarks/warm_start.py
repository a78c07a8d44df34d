"""The error of each way to find an activation's subspaces, on real MCUNet activations.

    python experiments/benchmarks/warm_start.py --data-dir DATA --weights-dir WEIGHTS --markdown FILE

Written to docs/results/warm_start.md.

MCUNet with ImageNet weights, CIFAR-10 at 128x128; the last 4 convolutions and the head are trained by SGD (lr 0.05,
clip 2.0) for 50 steps on shuffled batches. In every step each variant, with its own warm factors, compresses the same
input of each trained convolution. The table has the mean relative errors of the input and of dW, without the first
fifth of the steps.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

from fed_asi import models, seeds, tucker
from fed_asi.compression.cut import cut
from fed_asi.compression.tune import tune_last_
from fed_asi.data import load
from fed_asi.data.images import to_batch
from fed_asi.layers.geometry import geometry_of
from fed_asi.layers.tucker_gradient import weight_gradient
from fed_asi.methods.asi import COLD_ITERATIONS, fitted_ranks, sequential
from fed_asi.methods.forms import TuckerInput

RANKS = ((1, 8, 3, 3), (8, 8, 3, 3), (32, 32, 4, 4))
CHANNELS, HEIGHT, WIDTH, BATCH = 1, 2, 3, 0


@dataclass
class Variant:
    """One way to decompose: the order of modes, the iterations for each, and which of them start warm."""

    name: str
    order: tuple[int, ...] = (CHANNELS, HEIGHT, WIDTH, BATCH)
    truncated: bool = True
    iterations: dict[int, int] = field(default_factory=dict)
    cold: tuple[int, ...] = (BATCH,)
    share: float = 1.0
    spread: int = 1_000_000  # evenly spread samples from which the spatial bases are found
    shipped: bool = False  # uses the layers' own code
    warm: dict[str, list[Tensor | None]] = field(default_factory=dict)

    def compress(self, layer: str, x: Tensor, ranks: tuple[int, ...]) -> TuckerInput:
        """Return x: (B, C, H, W) compressed; the factors are the start of the next step."""
        starts = self.warm.get(layer, [None] * 4)
        starts = [None if mode in self.cold else start for mode, start in enumerate(starts)]
        core, factors = (self._shipped if self.shipped else self._decomposed)(x, ranks, starts)
        self.warm[layer] = [None if f is None else f[0] for f in factors]
        kept = TuckerInput(shape=x.shape, dtype=x.dtype)
        kept.add(core, factors)
        return kept

    def _shipped(
        self, x: Tensor, ranks: tuple[int, ...], starts: list[Tensor | None]
    ) -> tuple[Tensor, tucker.Factors]:
        fitted = fitted_ranks(ranks, x.shape, "layer")
        return sequential(x.unsqueeze(0), fitted, starts, 0, self.iterations.get(CHANNELS, 1))

    def _decomposed(
        self, x: Tensor, ranks: tuple[int, ...], starts: list[Tensor | None]
    ) -> tuple[Tensor, tucker.Factors]:
        factors: tucker.Factors = [None] * 4
        whole = rest = x.unsqueeze(0)
        for mode in self.order:
            rank = min(ranks[mode], x.shape[mode])
            if rank < x.shape[mode]:
                seen = rest
                if mode == CHANNELS:
                    seen = rest[:, : int(self.share * len(x))]
                elif mode in (HEIGHT, WIDTH):
                    seen = rest[:, :: max(1, len(x) // self.spread)]
                matrix = tucker.unfold(seen if self.truncated else whole, mode)
                start = tucker.fit_start(starts[mode], 0, x.shape[mode], rank, x)
                factor = tucker.iterate(matrix, start, self.iterations.get(mode, 1))
                factors[mode], rest = factor, tucker.mode_product(rest, factor, mode)
        return rest, factors


def variants() -> list[Variant]:
    """Return the ways that are compared; the last two are the layers' own code."""
    published = (BATCH, CHANNELS, HEIGHT, WIDTH)
    every = (BATCH, CHANNELS, HEIGHT, WIDTH)
    return [
        Variant("published order, all modes warm", published, False, cold=()),
        Variant("published order, batch mode cold", published, False),
        Variant("published order, all cold", published, False, cold=every),
        Variant("sequential, batch mode first, batch warm", published, cold=()),
        Variant("sequential, batch mode first, batch cold", published),
        Variant("channels first, batch warm", cold=()),
        Variant("channels first, batch cold, 1 iteration"),
        Variant("channels first, batch cold, 2 iterations", iterations={BATCH: 2}),
        Variant("the same, 2 iterations everywhere", iterations=dict.fromkeys(every, 2)),
        Variant("the same, channels from half the batch", iterations={BATCH: 2}, share=0.5),
        Variant("the same, channels from half, 2 iterations", iterations={BATCH: 2, CHANNELS: 2}, share=0.5),
        Variant(
            "channels from half, space from 8 samples", iterations={BATCH: 2}, share=0.5, spread=8
        ),
        Variant("channels from a quarter", iterations={BATCH: 2}, share=0.25),
        Variant("channels first, all cold, 1 iteration", cold=every),
        Variant(
            "channels first, all cold, 2 iterations", cold=every, iterations=dict.fromkeys(every, 2)
        ),
        Variant("channels first, all cold, 8 iterations", cold=every, iterations=dict.fromkeys(every, 8)),
        Variant("as built (warm)", shipped=True),
        Variant(
            "as built, warm=False", shipped=True, cold=every,
            iterations=dict.fromkeys(every, COLD_ITERATIONS),
        ),
    ]  # fmt: skip


def training(options: argparse.Namespace) -> Iterator[dict[str, tuple[nn.Module, Tensor, Tensor]]]:
    """Yield, after every backward pass, each trained convolution with its input and output gradient."""
    model = models.build("mcunet", 10, weights="imagenet", weights_dir=options.weights_dir).eval()
    trained = tune_last_(model, 4)
    mean, std = models.normalisation("mcunet")
    data = load("cifar10", options.data_dir)
    trunk, tail = cut(model, trained, torch.randn(2, 3, 128, 128))
    seen: dict[str, tuple[Tensor, Tensor]] = {}
    convolutions = {
        n: m for n, m in tail.named_modules() if isinstance(m, nn.Conv2d) and m.weight.requires_grad
    }
    for name, module in convolutions.items():
        _watch(name, module, seen)
    order = seeds.rng(0, "warm start").permutation(len(data.x_train))[: options.steps * options.batch]
    optimizer = torch.optim.SGD([p for p in tail.parameters() if p.requires_grad], lr=0.05)
    for first in range(0, len(order), options.batch):
        rows = order[first : first + options.batch]
        with torch.no_grad():
            features = trunk(to_batch(data.x_train[rows], 128, mean, std))
        loss = nn.functional.cross_entropy(tail(features), torch.as_tensor(data.y_train[rows]).long())
        optimizer.zero_grad()
        loss.backward()
        yield {name: (convolutions[name], *pair) for name, pair in seen.items()}
        torch.nn.utils.clip_grad_norm_([p for p in tail.parameters() if p.requires_grad], 2.0)
        optimizer.step()


def _watch(name: str, module: nn.Module, seen: dict[str, tuple[Tensor, Tensor]]) -> None:
    def forward(_: nn.Module, inputs: tuple[Tensor, ...], y: Tensor) -> None:
        x = inputs[0].detach()
        y.register_hook(lambda g: seen.__setitem__(name, (x, g.detach())))

    module.register_forward_hook(forward)


def measured(options: argparse.Namespace) -> dict[tuple[str, tuple[int, ...]], tuple[float, float, float]]:
    """Return the mean (input error, dW error, worst layer's dW error) of each variant at each ranks."""
    ways = {ranks: variants() for ranks in RANKS}
    errors: dict[tuple[str, tuple[int, ...]], dict[str, list[tuple[float, float]]]] = defaultdict(
        lambda: defaultdict(list)
    )
    for step, found in enumerate(training(options)):
        for layer, (module, x, g) in found.items():
            exact = module.weight.grad
            for ranks, several in ways.items():
                size = 1 if ranks[0] == 1 else len(x)
                for way in several:
                    kept = way.compress(layer, x[:size], ranks)
                    target = exact if size == len(x) else _exact(module, x[:size], g[:size])
                    dw = weight_gradient(kept, g[:size], exact, geometry_of(module))
                    pair = (_relative(kept.restore(), x[:size]), _relative(dw, target))
                    if step >= options.steps // 5:
                        errors[way.name, ranks][layer].append(pair)
        print(f"step {step + 1} of {options.steps}", end="\r", file=sys.stderr, flush=True)
    return {key: _summary(by_layer) for key, by_layer in errors.items()}


def _exact(module: nn.Module, x: Tensor, g: Tensor) -> Tensor:
    weight = module.weight.detach().requires_grad_()
    z = nn.functional.conv2d(x, weight, None, module.stride, module.padding, module.dilation, module.groups)
    return torch.autograd.grad(z, weight, g)[0]


def _summary(by_layer: dict[str, list[tuple[float, float]]]) -> tuple[float, float, float]:
    means = [tuple(statistics.fmean(v) for v in zip(*pairs, strict=True)) for pairs in by_layer.values()]
    return (
        statistics.fmean(m[0] for m in means),
        statistics.fmean(m[1] for m in means),
        max(m[1] for m in means),
    )


def _relative(a: Tensor, b: Tensor) -> float:
    return float((a - b).norm() / b.norm().clamp_min(1e-30))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--weights-dir", type=Path)
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--markdown", type=Path, help="also append the table to this file")
    options = parser.parse_args()
    torch.set_num_threads(1)
    found = measured(options)
    head = "| | " + " | ".join(f"{r}: x | dW | worst layer's dW" for r in RANKS) + " |"
    lines = [head, "|---" * (1 + 3 * len(RANKS)) + "|"]
    for name in dict.fromkeys(name for name, _ in found):
        cells = [f"{value:.3f}" for ranks in RANKS for value in found[name, ranks]]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    text = "\n".join(lines)
    print(f"\n{text}")
    if options.markdown:
        with options.markdown.open("a") as file:
            file.write(f"\n{text}\n")


if __name__ == "__main__":
    main()
