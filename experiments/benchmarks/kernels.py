"""How fast a tail's training step is, and compression alone, as ratios to plain PyTorch.

    taskset -c 3 python experiments/benchmarks/kernels.py steps    # the last 2 and 4 convolutions of four networks
    taskset -c 3 python experiments/benchmarks/kernels.py compress # one activation against the published order
    taskset -c 3 python experiments/benchmarks/kernels.py micro    # micro-batches 1 to 4, and 64 side by side
    python experiments/benchmarks/kernels.py peak                  # the most bytes a step holds at any time
    ... --networks mcunet,resnet18 --batches 16,64,128 --seconds 6 --markdown docs/results/kernels.md

All figures of a row are medians of interleaved runs in one process with one thread; the allocator keeps its memory for
both sides (a fresh page costs more than a pass over it). On the CPU the time is the thread's own: it excludes what
other processes take of the core, but not their effect on its caches. On a machine with CUDA, `--device cuda` times with
synchronised events.

A tail begins where the first trained layer gets its input, or before the residual block around that layer.
In `compress`, "one pass" is a sum over the activation, a lower limit for any compression. Elsewhere, "floor" is a lower
limit for any way of keeping the inputs: the step with `BiasOnly` (forward, dX, masks, bias sums), and one pass over the
inputs of the trained layers at memory bandwidth (a sum over as many bytes).
"""

from __future__ import annotations

import argparse
import copy
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

ALLOCATOR = {
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": "100000000000",
    "MALLOC_TOP_PAD_": "268435456",
}
THREADS = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
if __name__ == "__main__" and os.environ.get("MALLOC_MMAP_MAX_") != "0":
    os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, **ALLOCATOR, **THREADS})

import torch  # noqa: E402
from torch import Tensor, nn  # noqa: E402

from fed_asi import layers, models, tucker  # noqa: E402
from fed_asi.compression.compress import compress_  # noqa: E402
from fed_asi.compression.cut import cut  # noqa: E402
from fed_asi.compression.tune import tune_last_  # noqa: E402
from fed_asi.memory.peak import StepMeter  # noqa: E402
from fed_asi.methods import ASI, BiasOnly, Method  # noqa: E402
from fed_asi.methods.asi import sequential  # noqa: E402

NETWORKS = ("mcunet", "mobilenet_v2", "resnet18", "resnet34")
RANKS = {"8": (8, 8, 3, 3), "32": (32, 32, 4, 4)}
# The inputs of the trained convolutions of the four tails at 224x224.
ACTIVATIONS = ((384, 7), (96, 7), (576, 7), (160, 7), (960, 7), (320, 7), (512, 7), (256, 14))
Step = Callable[[], None]
Row = dict[str, float | str]


def tail_of(network: str, convolutions: int, resolution: int = 224) -> tuple[nn.Module, torch.Size]:
    """Return the tail with its last convolutions trained, and the shape of one of its inputs."""
    torch.manual_seed(0)
    model = models.build(network, 10, weights=None).eval()
    trained = tune_last_(model, convolutions)
    example = torch.randn(2, 3, resolution, resolution)
    trunk, tail = cut(model, trained, example, latest=True)
    with torch.no_grad():
        return tail, trunk(example).shape[1:]


@dataclass(frozen=True)
class Case:
    """One tail and a batch for it."""

    name: str
    tail: nn.Module
    x: Tensor
    y: Tensor

    @property
    def last(self) -> Tensor:
        """The batch with its channels last."""
        return self.x.to(memory_format=torch.channels_last)


def cases(options: argparse.Namespace) -> Iterator[Case]:
    """Yield every requested combination of tail and batch."""
    for network in options.networks.split(","):
        for convolutions in (2, 4):
            tail, shape = tail_of(network, convolutions)
            tail = tail.to(options.device)
            for batch in map(int, options.batches.split(",")):
                x = torch.randn(batch, *shape, device=options.device)
                y = torch.randint(0, 10, (batch,), device=options.device)
                yield Case(f"{network} last {convolutions}, batch {batch}", tail, x, y)


def step_of(model: nn.Module, x: Tensor, y: Tensor) -> Step:
    """Return one training step: forward, loss, backward, and keeping the warm factors."""

    def step() -> None:
        for parameter in model.parameters():
            parameter.grad = None
        nn.functional.cross_entropy(model(x), y).backward()
        layers.commit_factors_(model)

    return step


def medians(steps: dict[str, Step], seconds: float, device: str) -> dict[str, float]:
    """Return the median milliseconds of each step, interleaved for about `seconds`."""
    taken: dict[str, list[float]] = {name: [] for name in steps}
    for step in steps.values():
        step()
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(next(iter(taken.values()))) < 3:
        for name, step in steps.items():
            taken[name].append(_timed(step, device))
    return {name: statistics.median(values) for name, values in taken.items()}


def _timed(step: Step, device: str) -> float:
    if device != "cuda":
        start = time.thread_time()
        step()
        return (time.thread_time() - start) * 1e3
    first, last = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    first.record()
    step()
    last.record()
    torch.cuda.synchronize()
    return float(first.elapsed_time(last))


def compressed(tail: nn.Module, method: Method) -> nn.Module:
    """Return the tail compressed, channels last, in training mode."""
    ours = copy.deepcopy(tail).train()
    compress_(ours, method, seed=0)
    return ours.to(memory_format=torch.channels_last)


def trained_inputs(tail: nn.Module, x: Tensor) -> Tensor:
    """Return random numbers, as many as the inputs of the trained layers have."""
    sizes: list[int] = []
    hooks = [
        module.register_forward_pre_hook(lambda _module, args: sizes.append(args[0].numel()))
        for module in tail.modules()
        if isinstance(module, (nn.Conv2d, nn.Linear)) and module.weight.requires_grad
    ]
    with torch.no_grad():
        tail(x)
    for hook in hooks:
        hook.remove()
    return torch.randn(sum(sizes), device=x.device)


def with_pass(step: Step, inputs: Tensor) -> Step:
    """Return the step followed by one pass over `inputs`."""

    def both() -> None:
        step()
        inputs.sum()

    return both


def steps_rows(options: argparse.Namespace) -> Iterator[Row]:
    """Yield one row per network, tail and batch: milliseconds of plain PyTorch, ours and the floor."""
    for case in cases(options):
        plain = copy.deepcopy(case.tail).eval()
        plain_last = copy.deepcopy(plain).to(memory_format=torch.channels_last)
        floor = step_of(compressed(case.tail, BiasOnly()), case.last, case.y)
        steps = {
            "plain": step_of(plain, case.x, case.y),
            "plain channels_last": step_of(plain_last, case.last, case.y),
            "floor": with_pass(floor, trained_inputs(case.tail, case.x)),
        }
        for name, ranks in RANKS.items():
            steps[f"ours {name}"] = step_of(compressed(case.tail, ASI(ranks)), case.last, case.y)
        yield {"case": case.name, **medians(steps, options.seconds, options.device)}


def compress_rows(options: argparse.Namespace) -> Iterator[Row]:
    """Yield the milliseconds of one warm compression of one activation, in the published order and in ours."""
    for channels, size in ACTIVATIONS:
        for batch in map(int, options.batches.split(",")):
            x = torch.randn(1, batch, channels, size, size, device=options.device).relu_()
            last = x[0].to(memory_format=torch.channels_last).unsqueeze(0)
            steps: dict[str, Step] = {"one pass": lambda x=x: x.sum()}
            for name, asked in RANKS.items():
                ranks = [min(r, d) for r, d in zip(asked, x.shape[1:], strict=True)]
                _, warm = published(x, ranks, [None] * 4)
                starts = [None if f is None else f[0] for f in warm]
                steps[f"published {name}"] = lambda x=x, r=ranks, s=starts: published(x, r, s)
                steps[f"ours {name}"] = lambda x=last, r=ranks, s=starts: sequential(x, r, s, 0)
            found = medians(steps, options.seconds, options.device)
            yield {"case": f"{channels} channels {size}x{size}, batch {batch}", **found}


def published(x: Tensor, ranks: list[int], starts: tucker.Factors) -> tuple[Tensor, tucker.Factors]:
    """Return (core, factors) as arXiv 2505.05086 writes it: V = A_(m)^T U, U = orth(A_(m) V), then the core."""
    factors: tucker.Factors = []
    for mode, rank in enumerate(ranks):
        matrix = x[0].movedim(mode, 0).reshape(x.shape[mode + 1], -1)
        start = starts[mode]
        begin = torch.randn(matrix.shape[0], rank, device=x.device) if start is None else start
        factors.append(torch.linalg.qr(matrix @ (matrix.T @ begin))[0].unsqueeze(0))
    core = x[0]
    for factor in factors:  # each contracts the first mode and puts its rank last
        core = torch.tensordot(core, factor[0], dims=([0], [0])) if factor is not None else core
    return core.unsqueeze(0), factors


def peak_rows(options: argparse.Namespace) -> Iterator[Row]:
    """Yield the most MB that a step holds at any time, plain and ours, and the largest activation."""
    for case in cases(options):
        found = {"plain": peak(step_of(copy.deepcopy(case.tail).eval(), case.x, case.y), options.device)}
        for name, ranks in RANKS.items():
            step = step_of(compressed(case.tail, ASI(ranks)), case.last, case.y)
            found[f"ours {name}"] = peak(step, options.device)
        yield {"case": case.name, **found}


def peak(step: Step, device: str) -> float:
    """Return the most MB that the second step holds at any time, beyond what was allocated before."""
    step()
    with StepMeter(torch.device(device)) as meter:
        step()
    return meter.peak_bytes / 1e6


def micro_rows(options: argparse.Namespace) -> Iterator[Row]:
    """Yield steps at batch sizes 1 to 4, and 64 micro-batches one after another and side by side."""
    device = options.device
    for network in options.networks.split(","):
        tail, shape = tail_of(network, 4, resolution=128)
        tail = tail.to(device)
        for size in (1, 2, 4):
            method = ASI((1, 8, 3, 3))
            many = torch.randn(64 * size, *shape, device=device).to(memory_format=torch.channels_last)
            labels = torch.randint(0, 10, (64 * size,), device=device)
            x, y = many[:size], labels[:size]
            one = compressed(tail, method)
            steps = {
                "plain": step_of(copy.deepcopy(tail).eval(), x.contiguous(), y),
                "floor": with_pass(step_of(compressed(tail, BiasOnly()), x, y), trained_inputs(tail, x)),
                "ours": step_of(compressed(tail, method), x, y),
                "side by side": step_of(beside(tail, method, size), many, labels),
                "floor of 64": with_pass(
                    step_of(compressed(tail, BiasOnly()), many, labels), trained_inputs(tail, many)
                ),
                "one by one": in_turns(one, many.split(size), labels.split(size)),
            }
            found = medians(steps, options.seconds, device)
            yield {"case": f"{network} last 4, 128x128, micro-batch {size}", **found}


def beside(tail: nn.Module, method: Method, size: int) -> nn.Module:
    """Return the tail compressed for micro-batches of `size` side by side."""
    ours = copy.deepcopy(tail).train()
    compress_(ours, method, seed=0, micro_batch=size)
    return ours.to(memory_format=torch.channels_last)


def in_turns(model: nn.Module, xs: tuple[Tensor, ...], ys: tuple[Tensor, ...]) -> Step:
    """Return the same step, one micro-batch after another, with accumulated gradients."""

    def step() -> None:
        for parameter in model.parameters():
            parameter.grad = None
        for x, y in zip(xs, ys, strict=True):
            (nn.functional.cross_entropy(model(x), y) / len(xs)).backward()
        layers.commit_factors_(model)

    return step


def ratios(part: str, row: Row) -> dict[str, float]:
    """Return a row's ratios that have targets, by name."""
    value = {name: float(number) for name, number in row.items() if name != "case"}
    if part == "steps":
        best = min(value["plain"], value["plain channels_last"])
        found = {f"ours {r} / plain": value[f"ours {r}"] / value["plain"] for r in RANKS}
        found |= {f"ours {r} / better plain": value[f"ours {r}"] / best for r in RANKS}
        return {**found, "floor / plain": value["floor"] / value["plain"]}
    if part == "compress":
        return {f"faster at {r}": value[f"published {r}"] / value[f"ours {r}"] for r in RANKS}
    if part == "peak":
        return {f"ours {r} / plain": value[f"ours {r}"] / value["plain"] for r in RANKS}
    return {
        "ours / plain": value["ours"] / value["plain"],
        "floor / plain": value["floor"] / value["plain"],
        "faster side by side": value["one by one"] / value["side by side"],
        "at most, by the floor": value["one by one"] / value["floor of 64"],
    }


def table(part: str, rows: list[Row]) -> str:
    """Return the rows as Markdown, with the geometric mean and extremes of every ratio."""
    judged = [ratios(part, row) for row in rows]
    times = [name for name in rows[0] if name != "case"]
    names, unit = list(judged[0]), "MB" if part == "peak" else "ms"
    lines = ["| | " + " | ".join([f"{t}, {unit}" for t in times] + names) + " |"]
    lines.append("|---" * (1 + len(times) + len(names)) + "|")
    for row, found in zip(rows, judged, strict=True):
        cells = [f"{row[t]:.1f}" for t in times] + [f"{found[n]:.2f}" for n in names]
        lines.append(f"| {row['case']} | " + " | ".join(cells) + " |")
    for label, pick in (("geometric mean", statistics.geometric_mean), ("lowest", min), ("highest", max)):
        cells = [""] * len(times) + [f"**{pick([f[n] for f in judged]):.2f}**" for n in names]
        lines.append(f"| {label} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("part", choices=("steps", "compress", "micro", "peak"))
    parser.add_argument("--networks", default=",".join(NETWORKS))
    parser.add_argument("--batches", default="16,64,128")
    parser.add_argument("--seconds", type=float, default=6.0, help="about how long each line is measured")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--markdown", type=Path, help="also append the table to this file")
    options = parser.parse_args()
    torch.set_num_threads(1)
    makers = {"steps": steps_rows, "compress": compress_rows, "micro": micro_rows, "peak": peak_rows}
    rows: list[Row] = []
    for row in makers[options.part](options):
        rows.append(row)
        found = ratios(options.part, row)
        print(f"{row['case']:42s}" + "  ".join(f"{k} {v:.2f}" for k, v in found.items()), flush=True)
    text = table(options.part, rows)
    print(f"\n{text}")
    if options.markdown:
        with options.markdown.open("a") as file:
            file.write(f"\n## {options.part}\n\n`python {' '.join(sys.argv)}`\n\n{text}\n")


if __name__ == "__main__":
    main()
