"""Write four figures that explain, each from real records or traces, and the page that shows them.

python experiments/explain.py        writes docs/explanation/figures/ and docs/explanation/figures.md
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MultipleLocator
from torch import Tensor, nn

from fed_asi import compress_, models, plan, tune_last_
from fed_asi.compression.cut import cut, folded
from fed_asi.fleets import hardware
from fed_asi.fleets.file import load_config
from fed_asi.memory.arena.planned import laid_out
from fed_asi.memory.arena.step import record_step
from fed_asi.memory.device import DeviceMemory, device_memory
from fed_asi.methods import ASI, Method
from fed_asi.planning.plan import FLOOR, Plan
from fed_asi.planning.profile import Profile
from fed_asi.planning.rivals import captured_share
from fed_asi.results.clock_figures import draw_round
from fed_asi.results.drawing import (
    BAD,
    FAINT,
    HEIGHT,
    INK,
    ON_DARK,
    ON_LIGHT,
    PAPER,
    WIDTH,
    drawing,
    legend_below,
    panels,
    saved,
)
from fed_asi.results.night import by_day_and_night
from fed_asi.results.store import RunStore
from fed_asi.results.timeline import Timeline, timeline_of
from fed_asi.rounds.run import run_loop
from fed_asi.training.at_once import at_once
from fed_asi.training.steps import training_mode_
from fed_asi.units import format_bytes, format_seconds

DOCS = Path(__file__).parents[1] / "docs" / "explanation"
FORM = ASI((8, 8, 3, 3))
SAVED, OTHER, WEIGHTS, PASSING = "#2a6f97", "#7fb7be", "#e69f00", "#2a6f97"
KINDS = {
    "vanilla": "whole",
    "asi": "low rank (ASI)",
    "quantized": "8 or 4 bits",
    "mean": "spatial mean",
    FLOOR: "masks, loss",
}
COLORS = {"vanilla": "#0072b2", "asi": "#009e73", "quantized": "#56b4e9", "mean": "#e69f00", FLOOR: "#cc79a7"}
BUDGETS = ("2 KiB", "4 KiB", "8 KiB", "16 KiB")
MOST = 16384  # bytes, the largest of them
BOARDS = ("stm32f746", "stm32h743")

FLEET = """
name = "explain"
seed = 0
rounds = 2
cohort = 6

[model]
name = "tiny"
weights = "public"
resolution = 32

[data]
source = "digits"
public = 200

[sharding]
scheme = "dirichlet"
alpha = 0.5
minimum = 20

[method]
name = "planner"
layers = 4

[compute]
backend = "loop"

[[groups]]
name = "board"
count = 3
budget = "16 KiB"
device = "stm32h743"

[[groups]]
name = "pi"
count = 2
budget = "64 KiB"
device = "raspberry-pi-zero-2-w"

[[groups]]
name = "phone"
count = 1
budget = "unlimited"
device = "snapdragon-410"
"""


@dataclass(frozen=True, slots=True)
class Alive:
    """Bytes alive at each operation of a step: the saved ones, and all. forward: the number of forward operations."""

    saved: tuple[int, ...]
    total: tuple[int, ...]
    forward: int

    @property
    def peak(self) -> int:
        """The most bytes alive at any time."""
        return max(self.total)

    @property
    def between(self) -> int:
        """The bytes kept between forward and backward pass."""
        return self.saved[self.forward]


def alive(model: nn.Module, x: Tensor, y: Tensor) -> Alive:
    """Return what is alive over a training step of a network; each gradient is applied as soon as it is computed."""
    trace = record_step(model, x, y, gradients="applied")
    found, loss = laid_out(trace), trace.results["loss"].storage
    kept = found.factor_bytes  # from the previous step
    saved, total = [kept] * len(found.operations), [kept] * len(found.operations)
    for one in found.tensors:
        waits = one.first < trace.forward <= one.last and loss not in one.storages
        for operation in range(one.first, one.last + 1):
            total[operation] += one.bytes
            saved[operation] += one.bytes if waits else 0
    return Alive(tuple(saved), tuple(total), trace.forward)


def network(
    name: str, resolution: int, layers: int, batch: int, method: Method | None
) -> tuple[nn.Module, nn.Module, Tensor, Tensor]:
    """Return a network's trunk, its trained part (compressed if a method is given), images and labels."""
    model = models.build(name, 10, resolution=resolution).eval()
    trained = tune_last_(model, layers)
    x = torch.randn(batch, 3, resolution, resolution, generator=torch.Generator().manual_seed(0))
    trunk, tail = cut(model, {key.rpartition(".")[0] for key in trained}, x[:1])
    training_mode_(tail)
    if method is not None:
        compress_(tail, method)
    return trunk, tail, x, torch.arange(batch) % 10


def steps(name: str = "mcunet", resolution: int = 128, layers: int = 8, batch: int = 8) -> dict[str, Alive]:
    """Return what is alive over a step, with plain PyTorch and with ASI."""
    found = {}
    for title, method in (("plain PyTorch", None), (f"ASI, ranks {FORM.ranks}", FORM)):
        trunk, tail, x, y = network(name, resolution, layers, batch, method)
        with torch.no_grad():
            features = trunk(x)
        found[title] = alive(tail, features, y)
    return found


def devices(name: str = "mcunet", resolution: int = 128, layers: int = 4) -> dict[str, DeviceMemory]:
    """Return what a device holds, from plain PyTorch to everything that reduces it; one image at a time."""
    trunk, plain, x, y = network(name, resolution, layers, 1, None)
    _, tail, _, _ = network(name, resolution, layers, 1, FORM)
    small = {"trunk": folded(trunk), "gradients": "applied", "storage": "int8"}
    return {
        "plain": device_memory(plain, x, y, trunk=trunk, gradients="accumulated"),
        "ASI": device_memory(tail, x, y, trunk=trunk, gradients="accumulated"),
        "ASI, weights move\nlayer by layer": device_memory(
            tail, x, y, trunk=trunk, gradients="applied", mover=partial(at_once)
        ),
        "the same, frozen\npart in int8": device_memory(tail, x, y, mover=partial(at_once), **small),  # type: ignore[arg-type]
    }


def run() -> tuple[dict[str, Plan], dict[str, float], Timeline]:
    """Return a small fleet's plans by budget, what each captures, and its last round on the clock."""
    with tempfile.TemporaryDirectory() as folder:
        file, home = Path(folder) / "explain.toml", Path(folder) / "run"
        file.write_text(FLEET)
        run_loop(load_config(file), home)
        profile = Profile.load(home / "workplace" / "profile.json")
        with RunStore.read(home) as store:
            last = timeline_of(store)
    if last is None:
        raise SystemExit("the fleet has no clock: give its groups devices")
    plans = {budget: plan(profile, budget) for budget in BUDGETS}
    return plans, {budget: captured_share(one, profile) for budget, one in plans.items()}, last


def draw_steps(figure: Figure, found: dict[str, Alive]) -> None:
    """Draw the bytes alive over a step, one panel per method, on one scale."""
    axes = panels(figure, len(found))
    top = 1.15 * max(one.peak for one in found.values())
    for one, (title, curve) in zip(axes, found.items(), strict=True):
        for sizes, color, label in (
            (curve.total, OTHER, "comes and goes"),
            (curve.saved, SAVED, "saved for the backward"),
        ):
            changes = [0, *(i for i in range(1, len(sizes)) if sizes[i] != sizes[i - 1])]
            edges = [*changes, len(sizes)]
            one.stairs([sizes[i] for i in changes], edges, baseline=0, fill=True, color=color, label=label)
        one.axvline(curve.forward, color=INK, linewidth=1, linestyle=":")
        one.text(curve.forward, 0.985 * top, "forward  ", ha="right", va="top")
        one.text(curve.forward, 0.985 * top, "  backward", ha="left", va="top")
        one.set_title(
            f"{title}: saves {format_bytes(curve.between)}, peak {format_bytes(curve.peak)}", fontsize=9
        )
        one.set_xlim(0, len(curve.total) - 1)
        one.set_ylim(0, top)
        one.set_xlabel("operations of the step, in order")
        _in_bytes(one, "y", top)
    axes[0].set_ylabel("bytes alive")


def _in_bytes(axes: Axes, which: str, most: float) -> None:
    axis = axes.xaxis if which == "x" else axes.yaxis
    step = next(size for power in range(10, 40) if (size := 2**power) >= most / 5)
    axis.set_major_locator(MultipleLocator(step))
    axis.set_major_formatter(FuncFormatter(lambda value, _: format_bytes(round(value)).replace(".0 ", " ")))


def draw_devices(figure: Figure, found: dict[str, DeviceMemory]) -> None:
    """Draw a device's RAM and flash, stacked, beside the sizes of two boards."""
    left, right = panels(figure, 2)
    names = list(found)
    parts = {
        "weights that train": (WEIGHTS, [one.trained_bytes for one in found.values()]),
        "gradients": ("#cc79a7", [one.gradient_bytes for one in found.values()]),
        "factors that stay": ("#009e73", [one.factor_bytes + one.mean_bytes for one in found.values()]),
        "the larger phase: comes and goes": (
            PASSING,
            [max(one.trunk_bytes, one.step.bytes) for one in found.values()],
        ),
    }
    _stack(left, names, parts)
    _stack(right, names, {"what is only read": (FAINT, [one.flash_bytes for one in found.values()])})
    for axes, title, have in ((left, "RAM", "ram_bytes"), (right, "flash", "flash_bytes")):
        axes.set_title(title, fontsize=9)
        for board, dash in zip(BOARDS, ("--", ":"), strict=True):
            size = getattr(hardware.preset(board).hardware, have)
            axes.axvline(size, color=BAD, linewidth=1.2, linestyle=dash, label=f"{board} has")
    right.set_yticklabels([])


def _stack(axes: Axes, names: Sequence[str], parts: dict[str, tuple[str, list[int]]]) -> None:
    edges = [0] * len(names)
    for title, (color, sizes) in parts.items():
        axes.barh(range(len(names)), sizes, left=edges, color=color, label=title, height=0.6)
        edges = [edge + size for edge, size in zip(edges, sizes, strict=True)]
    for row, edge in enumerate(edges):
        axes.text(edge, row, f" {format_bytes(edge)}", va="center", fontsize=8)
    axes.set_yticks(range(len(names)), names, fontsize=8)
    axes.set_xlim(0, 1.3 * max(edges))
    axes.grid(False, axis="y")
    axes.invert_yaxis()
    _in_bytes(axes, "x", 1.3 * max(edges))


def draw_plans(figure: Figure, found: dict[str, Plan]) -> None:
    """Draw each plan's bytes by layer, coloured by the form in which the layer's input is kept."""
    (axes,) = panels(figure, 1)
    named: set[str] = set()
    for row, chosen in enumerate(found.values()):
        edge = 0
        for layer, size in chosen.layer_bytes.items():
            kind = FLOOR if layer == FLOOR else chosen.methods[layer].kind
            label = KINDS.get(kind, kind) if kind not in named and size else None
            named |= {kind} if size else set()
            color = COLORS.get(kind, FAINT)
            axes.barh(row, size, left=edge, color=color, edgecolor=PAPER, height=0.6, label=label)
            if size > 0.15 * MOST:
                short = layer.removesuffix(".conv").rsplit(".", 1)[-1]
                ink = ON_LIGHT if kind in ("quantized", "mean") else ON_DARK
                axes.text(edge + size / 2, row, short, ha="center", va="center", fontsize=7, color=ink)
            edge += size
        axes.plot([chosen.budget_bytes] * 2, [row - 0.4, row + 0.4], color=BAD, linewidth=2)
        axes.text(edge, row - 0.42, format_bytes(edge), fontsize=7, va="bottom", ha="right")
    axes.plot([], [], color=BAD, linewidth=2, label="the budget")
    axes.set_yticks(range(len(found)), list(found))
    axes.invert_yaxis()
    axes.grid(False, axis="y")
    axes.set_xlabel("bytes that the plan saves of one micro-batch")
    axes.set_ylabel("budget")
    axes.set_xlim(0, 1.05 * MOST)
    _in_bytes(axes, "x", MOST)


PAGE = """# Four figures

Drawn by `python experiments/explain.py` (half a minute, nothing to download) from the traces, plans and records of
real runs. They are light or dark, as the reader's system is.

## A step's memory rises and falls

![bytes alive over a training step](figures/step.svg)

One training step of MCUNet's last eight convolutions and head, 128x128, micro-batch 8, random weights. In the forward
pass, plain PyTorch saves the input of every layer that is trained. The pile is highest when the backward pass begins,
which then removes it layer by layer. **Plain PyTorch saves {plain_saved}; ASI at ranks {ranks} saves {asi_saved},
{times:.0f} times less,** because only a core and four thin factors are saved per layer (and the factors of the step
before, from which the next ones start). The peak, {plain_peak} against {asi_peak}, shrinks less, because what an
operation needs while it runs stays as large. The [arena](memory_of_a_device.md) is planned from this trace. Each
gradient is applied as soon as it is computed.

## What a device holds

![RAM and flash of a device, stacked](figures/device.svg)

MCUNet's last four convolutions and head, one image at a time. Bars from the top: {rams} of RAM. **Saving less is not
enough where weights and their gradients are the larger part.** Updating each weight as soon as its gradient is
computed removes the gradients; storing frozen weights in int8 shrinks flash and the trunk's activations. What remains
are the trained weights. A plan for `ram` and `flash` trains fewer channels, and then 320 KiB and 1 MiB
are enough ([the memory of a device](memory_of_a_device.md#devices-that-name-it)).

## A plan's bytes by layer

![a plan's bytes by layer](figures/plan.svg)

The planner's choice of micro-batch and of each layer's form, for the last four convolutions of the network "tiny" and
four budgets. **No bar exceeds its red line.** With a larger budget the plan keeps more, and compresses it less, where
that captures more of the gradient: {plans}. `fed-asi plan --figure` draws this figure for your own
network.

## A round on the clock

![one round, device by device](figures/round.svg)

A round of three microcontrollers (stm32h743), two Raspberry Pi Zero 2 W and a phone (Snapdragon 410), each with its
own shard, in simulated seconds. The round takes {round}. **The slowest device sets the pace; the others wait
(grey).** Ways out are a deadline, asking more devices than are needed, updates in place of rounds
([clock.md](clock.md)), and plans within a round's seconds ([plan_time.md](plan_time.md)).
"""


def numbers(found: dict[str, Alive], held: dict[str, DeviceMemory]) -> dict[str, object]:
    """Return those numbers on the page that depend on shapes alone, so they are the same on every machine."""
    plain, low_rank = found.values()
    return {
        "plain_saved": format_bytes(plain.between),
        "asi_saved": format_bytes(low_rank.between),
        "plain_peak": format_bytes(plain.peak),
        "asi_peak": format_bytes(low_rank.peak),
        "times": plain.between / low_rank.between,
        "ranks": FORM.ranks,
        "rams": ", ".join(format_bytes(one.ram_bytes) for one in held.values()),
    }


def main() -> None:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter).parse_args()
    torch.set_num_threads(1)
    found, held = steps(), devices()
    plans, captured, last = run()
    (DOCS / "figures").mkdir(parents=True, exist_ok=True)
    with drawing():
        for name, draw in {
            "step": partial(draw_steps, found=found),
            "device": partial(draw_devices, found=held),
            "plan": partial(draw_plans, found=plans),
            "round": partial(draw_round, timeline=last),
        }.items():
            figure = Figure(figsize=(2 * WIDTH, HEIGHT), layout="constrained")
            draw(figure)
            legend_below(figure)
            (DOCS / "figures" / f"{name}.svg").write_bytes(by_day_and_night(saved(figure, "svg")))
    said = ", ".join(f"{100 * share:.1f} % of it within {budget}" for budget, share in captured.items())
    text = PAGE.format(**numbers(found, held), plans=said, round=format_seconds(last.seconds))
    (DOCS / "figures.md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
