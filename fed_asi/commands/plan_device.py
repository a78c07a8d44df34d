"""`fed-asi plan --ram --flash`: the best plan of a whole device, and what its step needs, by name."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import Any

from torch import Tensor, nn

from fed_asi.commands.console import answer, bar, show, width
from fed_asi.compression import cut
from fed_asi.fleets.config import TrainConfig
from fed_asi.memory.stored import FORMATS, format_of
from fed_asi.planning.bench import Bench
from fed_asi.planning.figure import figure
from fed_asi.planning.profile import Profile
from fed_asi.planning.question import UPDATES
from fed_asi.planning.whole_device import plan_device
from fed_asi.training.rules import rules_of
from fed_asi.training.steps import training_mode_


def add_device_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what a device has."""
    add = parser.add_argument_group("a whole device's memory").add_argument
    add("--ram", metavar="SIZE", help='what a whole step may take, such as "320 KiB"')
    add("--flash", metavar="SIZE", help="what the weights that are only read may take, as they are stored")
    add("--reserve", metavar="SIZE", help="the part of the RAM that the program itself needs")
    add("--storage", choices=FORMATS, help="how frozen weights are stored; default: float32")
    add("--update", choices=UPDATES, help="when weights are updated; default: step")


def wrong_arguments(arguments: argparse.Namespace) -> Iterator[str]:
    """Yield what does not go with --ram and --flash, or not without them."""
    if arguments.ram or arguments.flash:
        if arguments.schedule:
            yield "--schedule: plans budgets; leave --ram and --flash out"
        if arguments.count != "saved":
            yield f"--count {arguments.count}: --ram and --flash count the whole step, beside what --budget covers"
    else:
        for name in ("reserve", "update", "storage"):
            if getattr(arguments, name):
                yield f"--{name} {getattr(arguments, name)}: goes with --ram or --flash"


def show_device_plan(
    arguments: argparse.Namespace,
    model: nn.Module,
    batch: tuple[Tensor, Tensor],
    made: Profile,
    options: dict[str, Any],
) -> None:
    """Print the best plan of a whole device, what its step needs by name, and save it where that is asked for."""
    x, y = batch
    trunk, tail = cut.cut(model.eval(), {layer.name for layer in made.layers}, x[:1])
    training_mode_(tail)
    rules = rules_of(TrainConfig(update=arguments.update or "step"), len(x))
    limits = {name: getattr(arguments, name) for name in ("ram", "flash", "reserve", "budget")}
    kept = {key: value for key, value in options.items() if key != "count"}
    with bar("steps traced"):
        bench = Bench(
            tail,
            x,
            y,
            rules,
            trunk=cut.folded(trunk),
            storage=format_of(arguments.storage or "float32"),
            moved={layer.name for layer in made.layers},
        )
        found = plan_device(made, bench, **limits, **kept)
    show(found.plan.table(width=width()))
    show(f"\n{found.memory}")
    memory = found.memory
    answer(
        plan=found.plan.to_dict(),
        ram_bytes=memory.ram_bytes,
        flash_bytes=memory.flash_bytes,
        phase=memory.phase,
    )
    if arguments.save:
        found.plan.save(arguments.save)
    if arguments.figure:
        figure([(arguments.budget, found.plan)], arguments.figure)
