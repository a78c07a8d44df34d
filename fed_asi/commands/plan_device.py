"""`fed-asi plan --ram --flash`: the best plan of a whole device, and the parts that its step needs."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from fed_asi.commands.console import answer, bar, show, width
from fed_asi.compression.by_channels import TRUNK_BY
from fed_asi.errors import BudgetError
from fed_asi.fleets.config import TrainConfig
from fed_asi.memory.stored import FORMATS, TRAINED_FORMATS, format_of
from fed_asi.planning.bench import Bench
from fed_asi.planning.columns import columns
from fed_asi.planning.device_search import DevicePlan
from fed_asi.planning.device_tables import device_text
from fed_asi.planning.figure import figure
from fed_asi.planning.profile import Profile
from fed_asi.planning.question import UPDATES
from fed_asi.planning.rivals import captured_share
from fed_asi.planning.whole_device import DevicePlanner, best_of
from fed_asi.planning.within import Within
from fed_asi.training.device_bench import device_bench
from fed_asi.units import format_bytes

ANY = "any"  # the planner chooses


def add_device_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments that describe a device's memory."""
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
    add(
        "--trained-as",
        choices=TRAINED_FORMATS,
        help="how trained weights are kept in RAM; default: float32",
    )
    add(
        "--trunk-by",
        choices=TRUNK_BY,
        help="how the frozen trunk runs: layer by layer (default), or its depthwise convolutions by channels",
    )


def wrong_arguments(arguments: argparse.Namespace) -> Iterator[str]:
    """Yield which arguments do not go with --ram and --flash, or not without them."""
    if asks_device(arguments):
        if arguments.schedule:
            yield "--schedule: is for budgets alone; leave out --ram and --flash"
        if arguments.count != "saved":
            yield f"--count {arguments.count}: leave it out, as --ram and --flash count the whole step"
        several = arguments.resolution is not None and "," in arguments.resolution
        if several and arguments.profile:
            yield f"--profile: keeps the calibration at one resolution; --resolution names {arguments.resolution}"
    else:
        if arguments.resolution is not None and "," in arguments.resolution:
            yield f"--resolution {arguments.resolution}: of several a plan chooses with --ram or --flash; give one"
        for name in ("reserve", "update", "storage", "trained-as", "trunk-by"):
            if value := getattr(arguments, name.replace("-", "_")):
                yield f"--{name} {value}: needs --ram or --flash"


def asks_device(arguments: argparse.Namespace) -> bool:
    """Return whether the plan of a whole device is asked for."""
    return bool(arguments.ram or arguments.flash)


@dataclass(frozen=True, slots=True)
class Sight:
    """A network, a batch of images at one resolution, and the profile made from them."""

    model: nn.Module
    batch: tuple[Tensor, Tensor]
    profile: Profile

    @property
    def pixels(self) -> int:
        """The images' height and width, in pixels."""
        return int(self.batch[0].shape[-1])


def show_device_plan(arguments: argparse.Namespace, sights: Sequence[Sight], options: dict[str, Any]) -> None:
    """Print the best plan of a whole device, the parts that its step needs, and simpler ways on the same device.

    sights: one per resolution, largest first; the plan is that of the first resolution that has one. It is saved if
    asked for.
    Raises BudgetError if no resolution has a plan.
    """
    within = Within.of(arguments.ram, arguments.flash, arguments.budget, arguments.reserve)
    micro_batch = options["micro_batch"]
    kept = {key: value for key, value in options.items() if key not in {"count", "micro_batch"}}
    with bar("steps traced"):
        tried = [_at(arguments, one, within, micro_batch, kept) for one in sights]
    one, planners, found = next(((o, p, f) for o, p, f in tried if isinstance(f, DevicePlan)), tried[-1])
    if isinstance(found, BudgetError):
        raise found if len(sights) == 1 else BudgetError(f"at {one.pixels} x {one.pixels} pixels: {found}")
    if len(tried) > 1:
        show(f"{_resolutions_text([(at.pixels, at.profile, plan) for at, _, plan in tried])}\n")
    show(found.plan.table(width=width()))
    show(f"\n{found.memory}\n")
    answer(
        plan=found.plan.to_dict(),
        ram_bytes=found.memory.ram_bytes,
        flash_bytes=found.memory.flash_bytes,
        phase=found.memory.phase,
        captured=captured_share(found.plan, one.profile),
        resolution=one.pixels,
    )
    if arguments.save:
        found.plan.save(arguments.save)
    if arguments.figure:
        figure([(arguments.budget, found.plan)], arguments.figure)
    if not arguments.json:
        with bar("what more bytes would buy, and what simpler ways reach"):
            text = device_text(planners, within, found, micro_batch, width())
        show(text)


def _at(
    arguments: argparse.Namespace,
    one: Sight,
    within: Within,
    micro_batch: int | None,
    options: dict[str, Any],
) -> tuple[Sight, list[DevicePlanner], DevicePlan | BudgetError]:
    """Return the planners at one resolution, and the best plan or the reason why there is none."""
    benches = _benches(arguments, one.model, one.batch, one.profile)
    planners = [DevicePlanner(one.profile, bench, **options) for bench in benches]
    try:
        return one, planners, best_of(planners, within, micro_batch)
    except BudgetError as error:
        return one, planners, error


def _resolutions_text(tried: Sequence[tuple[int, Profile, DevicePlan | BudgetError]]) -> str:
    """Return a table of the best plan at each resolution."""
    rows: list[tuple[str, ...]] = [
        ("resolution", "of its gradient captured", "RAM", "flash", "micro-batch", "layers")
    ]
    for pixels, profile, found in tried:
        name = f"{pixels} x {pixels}"
        if isinstance(found, BudgetError):
            rows.append((name, "does not fit: " + str(found).split(": ")[0], "", "", "", ""))
            continue
        plan, memory = found.plan, found.memory
        sizes = format_bytes(memory.ram_bytes), format_bytes(memory.flash_bytes)
        captured = f"{captured_share(plan, profile):.1%}"
        rows.append((name, captured, *sizes, str(plan.micro_batch), str(len(plan.methods))))
    said = "What plans capture at different resolutions does not compare; the largest with a plan is taken:"
    return f"{said}\n\n{columns(rows, width())}"


def _benches(
    arguments: argparse.Namespace, model: nn.Module, batch: tuple[Tensor, Tensor], made: Profile
) -> list[Bench]:
    """Return the benches that trace steps: one per format and update that the plan may choose, the finest first."""
    names = {layer.name for layer in made.layers}
    formats = FORMATS if arguments.storage == ANY else (format_of(arguments.storage or FORMATS[0]),)
    updates = TrainConfig(update=arguments.update or "step").updates
    return [
        device_bench(
            model,
            *batch,
            names,
            update=update,
            storage=form,
            trained_as=arguments.trained_as or TRAINED_FORMATS[0],
            trunk_by=arguments.trunk_by or TRUNK_BY[0],
        )
        for form in formats
        for update in updates
    ]
