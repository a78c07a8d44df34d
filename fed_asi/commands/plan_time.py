"""`fed-asi plan --device`: a plan with the seconds and joules of a step, by part, and what other budgets would take."""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from fed_asi.commands.console import answer, bar, show, width
from fed_asi.compression import cut
from fed_asi.compression.graph import analyse
from fed_asi.errors import ConfigError
from fed_asi.fleets.hardware import Hardware, Preset, preset
from fed_asi.fleets.pace import RATES
from fed_asi.memory.work import Shape, network_of
from fed_asi.planning.device_round import DeviceRound
from fed_asi.planning.duty import Duty
from fed_asi.planning.figure import figure
from fed_asi.planning.in_time import TimedPlan, plan_in_time
from fed_asi.planning.profile import Profile
from fed_asi.planning.rivals import captured_share
from fed_asi.planning.tables import plan_table
from fed_asi.planning.time_frontier import frontier
from fed_asi.planning.time_tables import frontier_table, kinds_of_work, takes, where_it_goes
from fed_asi.planning.wishes import Wishes


def add_time_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments that describe a device and limit a step on it."""
    add = parser.add_argument_group("a device's time and energy").add_argument
    add("--device", metavar="NAME", help="a preset such as stm32f746, or the TOML file of a device")
    add("--max-seconds", type=float, metavar="S", help="what a step of all calibration images may take")
    add("--max-joules", type=float, metavar="J", help="the same in joules")
    add(
        "--quicker",
        action=argparse.BooleanOptionalAction,
        help="among plans equal to 0.1 %%, take the fastest (default with --device); without a device, the one with "
        "the fewest multiply-accumulates",
    )


def asks_time(arguments: argparse.Namespace) -> bool:
    """Return whether a plan with time is asked for."""
    return arguments.device is not None or bool(arguments.quicker)


def wrong_time(arguments: argparse.Namespace) -> Iterator[str]:
    """Yield what is wrong with a device and with the limits of a step on it."""
    limits = {f"--{key.replace('_', '-')}": getattr(arguments, key) for key in ("max_seconds", "max_joules")}
    asked = [key for key, most in limits.items() if most is not None]
    asked += [f"--objective {arguments.objective}"] if arguments.objective in RATES else []
    if arguments.device is None:
        yield from (f"{one}: needs a device whose time is known, such as --device stm32f746" for one in asked)
    else:
        yield from _wrong_device(arguments)
    for key, most in limits.items():
        if most is not None and not 0.0 < most < math.inf:
            yield f"{key} {most:g}: must be above 0, for one step"
    if arguments.published and arguments.objective in RATES:
        yield f"--objective {arguments.objective}: does not go with --published; leave one of them out"
    if asks_time(arguments):
        yield from (
            f"--{one}: cannot be planned with time yet; leave it out, or --device and --quicker"
            for one in ("schedule", "ram", "flash")
            if getattr(arguments, one, None)
        )


def _wrong_device(arguments: argparse.Namespace) -> Iterator[str]:
    try:
        found = preset(arguments.device).hardware
    except ConfigError as error:
        yield from (f"--device: {problem}" for problem in error.problems)
        return
    if found.missing:
        yield f"--device {arguments.device}: lacks {', '.join(found.missing)}, without which it has no clock"
    power = [key for key in found.lacking_power if key != "radio_watts"]  # a step does not send anything
    if power and (arguments.max_joules is not None or arguments.objective == "captured-per-joule"):
        yield f"--device {arguments.device}: lacks {', '.join(power)}, without which its joules are not known"


def show_timed_plan(
    arguments: argparse.Namespace,
    model: nn.Module,
    batch: tuple[Tensor, Tensor],
    made: Profile,
    options: dict[str, Any],
) -> None:
    """Print the best plan with its time, by part, and the times of other budgets; save it if asked for."""
    with bar("the work of a step"):
        round, named = _round(arguments, model, batch[0], made)
    wishes = Wishes(
        arguments.max_seconds,
        arguments.max_joules,
        arguments.objective if arguments.objective in RATES else None,
        quicker=arguments.quicker is not False,
    )
    asked = options | ({"objective": None} if wishes.rate else {})
    with bar("plans and their time"):
        chosen = plan_in_time(made, arguments.budget, round, wishes, **asked)
    show(plan_table(chosen.plan, made, width()))
    show(f"\na step of {len(batch[0])} images{named}, trunk included: {takes(chosen)}")
    show(f"\n{where_it_goes(chosen, round, width())}")
    show(kinds_of_work(round, chosen))
    with bar("other bytes"):
        rows = frontier(made, chosen.plan, round, **asked)
    show(f"\n{frontier_table(rows, chosen, made, width())}")
    answer(**_data(chosen), captured=captured_share(chosen.plan, made), frontier=[_data(one) for one in rows])
    if arguments.save:
        chosen.plan.save(arguments.save)
    if arguments.figure:
        figure([(arguments.budget, chosen.plan)], arguments.figure)


def _data(one: TimedPlan) -> dict[str, Any]:
    """Return a plan with its time as data for --json."""
    seconds, joules = (None, None) if one.spent is None else (one.spent.sim_seconds, one.spent.energy_joules)
    return {
        "plan": one.plan.to_dict(),
        "seconds": seconds,
        "joules": joules,
        "multiply_accumulates": one.macs,
    }


def _round(
    arguments: argparse.Namespace, model: nn.Module, x: Tensor, made: Profile
) -> tuple[DeviceRound, str]:
    """Return one step over all images on the device, without messages, and the name of the device."""
    trunk, tail = cut.cut(model.eval(), {layer.name for layer in made.layers}, x[:1])
    quick = cut.folded(trunk)
    with torch.inference_mode():
        features = quick(x[:1])
    networks = network_of(quick, x[:1]), network_of(tail.eval(), features.clone(), analyse(tail).pooled)
    device = preset(arguments.device) if arguments.device else None
    return DeviceRound(*networks, Duty({len(x): 1}, up=_nothing), _unlinked(device)), _named(device)


def _nothing(_shape: Shape) -> int:
    return 0


def _unlinked(device: Preset | None) -> Hardware | None:
    """Return the device with a link that takes no time, since a step sends no messages."""
    if device is None:
        return None
    return replace(device.hardware, latency_seconds=0.0, radio_watts=device.hardware.radio_watts or 0.0)


def _named(device: Preset | None) -> str:
    if device is None:
        return ""
    sources = device.sources.values()
    guessed = sum(one.is_estimate for one in sources)
    note = f" ({guessed} of its {len(sources)} numbers are estimates)" if guessed else ""
    return f" on {device.title}{note}"
