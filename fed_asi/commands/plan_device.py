"""`fed-asi plan --ram --flash`: the best plan of a whole device, and what its step needs, by name."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import Any

from torch import Tensor, nn

from fed_asi.commands.console import answer, bar, show, width
from fed_asi.fleets.config import TrainConfig
from fed_asi.memory.stored import FORMATS, format_of
from fed_asi.planning.bench import Bench
from fed_asi.planning.device_tables import device_text
from fed_asi.planning.figure import figure
from fed_asi.planning.profile import Profile
from fed_asi.planning.question import UPDATES
from fed_asi.planning.rivals import captured_share
from fed_asi.planning.whole_device import DevicePlanner, best_of
from fed_asi.planning.within import Within
from fed_asi.training.device_bench import device_bench

ANY = "any"  # the planner chooses


def add_device_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what a device has."""
    add = parser.add_argument_group("a whole device's memory").add_argument
    add("--ram", metavar="SIZE", help='what a whole step may take, such as "320 KiB"')
    add("--flash", metavar="SIZE", help="what the weights that are only read may take, as they are stored")
    add("--reserve", metavar="SIZE", help="the part of the RAM that the program itself needs")
    add(
        "--storage",
        choices=(*FORMATS, ANY),
        help='how frozen weights are stored; default: float32; "any": the best plan chooses',
    )
    add(
        "--update",
        choices=(*UPDATES, ANY),
        help='when weights are updated; default: step; "any": step or layer, as the best plan has it',
    )


def wrong_arguments(arguments: argparse.Namespace) -> Iterator[str]:
    """Yield what does not go with --ram and --flash, or not without them."""
    if asks_device(arguments):
        if arguments.schedule:
            yield "--schedule: is for budgets alone; leave out --ram and --flash"
        if arguments.count != "saved":
            yield f"--count {arguments.count}: leave it out, as --ram and --flash count the whole step"
    else:
        for name in ("reserve", "update", "storage"):
            if getattr(arguments, name):
                yield f"--{name} {getattr(arguments, name)}: needs --ram or --flash"


def asks_device(arguments: argparse.Namespace) -> bool:
    """Return whether the plan is that of a whole device."""
    return bool(arguments.ram or arguments.flash)


def show_device_plan(
    arguments: argparse.Namespace,
    model: nn.Module,
    batch: tuple[Tensor, Tensor],
    made: Profile,
    options: dict[str, Any],
) -> None:
    """Print the best plan of a whole device, what its step needs by name, and what stands beside it.

    It is saved where that is asked for.
    """
    within = Within.of(arguments.ram, arguments.flash, arguments.budget, arguments.reserve)
    micro_batch = options["micro_batch"]
    kept = {key: value for key, value in options.items() if key not in {"count", "micro_batch"}}
    with bar("steps traced"):
        planners = [DevicePlanner(made, bench, **kept) for bench in _benches(arguments, model, batch, made)]
        found = best_of(planners, within, micro_batch)
    show(found.plan.table(width=width()))
    show(f"\n{found.memory}\n")
    memory = found.memory
    answer(
        plan=found.plan.to_dict(),
        ram_bytes=memory.ram_bytes,
        flash_bytes=memory.flash_bytes,
        phase=memory.phase,
        captured=captured_share(found.plan, made),
    )
    if arguments.save:
        found.plan.save(arguments.save)
    if arguments.figure:
        figure([(arguments.budget, found.plan)], arguments.figure)
    if not arguments.json:
        with bar("what more bytes would buy, and what simpler ways reach"):
            text = device_text(planners, within, found, micro_batch, width())
        show(text)


def _benches(
    arguments: argparse.Namespace, model: nn.Module, batch: tuple[Tensor, Tensor], made: Profile
) -> list[Bench]:
    """Return where steps are traced: one for each format and update that the plan may choose, the finest first."""
    names = {layer.name for layer in made.layers}
    formats = FORMATS if arguments.storage == ANY else (format_of(arguments.storage or FORMATS[0]),)
    updates = TrainConfig(update=arguments.update or "step").updates
    return [
        device_bench(model, *batch, names, update=update, storage=form)
        for form in formats
        for update in updates
    ]
