"""`fed-asi check`: load everything that a fleet file names, plan each group, and start nothing."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fed_asi.commands.console import LOST, OK, add_output, answer, bar, hint, show, width
from fed_asi.commands.fleet_arguments import add_folders, add_overrides
from fed_asi.fleets.file import load_config
from fed_asi.fleets.pace_checks import asks_time
from fed_asi.memory.device import DeviceMemory
from fed_asi.planning.columns import columns
from fed_asi.texts import command_line, visible
from fed_asi.units import format_bytes
from fed_asi.workplace.ahead import Ahead, look_ahead

EXAMPLE = "fed-asi check fleet.toml --set train.lr=0.1"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("fleet", type=Path, metavar="FLEET.toml", help="the fleet file")
    add_folders(parser)
    add_overrides(parser)
    add_output(parser, wide=True)


def main(given: argparse.Namespace) -> int:
    """Print the plan of each kind of device, and return the exit code: 1 if no device has a plan.

    Raises ConfigError with all of the file's problems, MissingDataError and WeightsError.
    """
    config = load_config(given.fleet, given.set, data_dir=given.data_dir)
    for address, text in config.code.items():
        hint(f"code: {visible(address)}, {len(text.splitlines())} lines")
    with bar("data, network and plans"):
        found = look_ahead(config, data_dir=given.data_dir, weights_dir=given.weights_dir)
    lost = all(one.attempt is None for one in found)
    show(columns(_table(found), width()))
    answer(plans=[_data(one) for one in found], any=not lost)
    if config.model.weights == "public":
        hint("The server trains the network first; its ranks may then come out differently.")
    if asks_time(config):
        hint("Planned by bytes alone; what a round may take of a device's time counts when the run begins.")
    if lost:
        show("No device has a plan: the run would train nothing.")
        return LOST
    hint(f"All of it can be used; nothing was started. Next: {command_line(['fed-asi', 'run', given.fleet])}")
    return OK


def _data(one: Ahead) -> dict[str, Any]:
    """Return a kind of device and its plan as data for --json."""
    who = {
        "group": one.group,
        "devices": one.devices,
        "from_round": one.round,
        "budget_bytes": one.resources.budget_bytes,
        "resolution": one.resolution,
        "cause": one.cause,
    }
    if one.attempt is None:
        return {**who, "planned_bytes": None, "micro_batch": None, "methods": {}, "policy": None}
    plan, memory = one.attempt.plan, one.memory
    methods = {name: method.to_dict() for name, method in plan.methods.items()}
    done = {"planned_bytes": plan.planned_bytes, "micro_batch": plan.micro_batch, "methods": methods}
    if memory is not None:
        done |= {"ram_bytes": memory.ram_bytes, "flash_bytes": memory.flash_bytes}
        done |= {"phase": memory.phase, "update": plan.update, "storage": plan.storage}
    return {**who, **done, "policy": one.attempt.policy}


def _table(found: Sequence[Ahead]) -> list[tuple[str, ...]]:
    """Return the table of plans; the columns for RAM, flash and resolution appear only where a device uses them."""
    whole = any(one.resources.whole_device for one in found)
    sizes = len({one.resolution for one in found}) > 1
    head = ["group", "devices", "from round", "budget", "planned"]
    head += ["RAM", "flash", "update"] if whole else []
    head += ["pixels"] if sizes else []
    return [(*head, "micro-batch", "method"), *(_row(one, whole, sizes) for one in found)]


def _row(one: Ahead, whole: bool, sizes: bool) -> tuple[str, ...]:
    who = visible(one.group), str(one.devices), str(one.round), format_bytes(one.resources.budget_bytes)
    pixels = [str(one.resolution)] if sizes else []
    if one.attempt is None:
        rest = ["", "", "", *pixels] if whole else pixels
        return (*who, "none", *rest, "", visible(one.cause.partition(" (")[0]))
    plan, policy = one.attempt.plan, one.attempt.policy
    kinds = "+".join(dict.fromkeys(method.kind for method in plan.methods.values()))
    said = kinds if policy is None else f"{kinds} by {policy}"
    needs = _needs(one.memory, plan.update) if whole else []
    return (*who, format_bytes(plan.planned_bytes), *needs, *pixels, str(plan.micro_batch), visible(said))


def _needs(memory: DeviceMemory | None, update: str | None) -> list[str]:
    """Return the RAM and flash of a device's step, and when its weights move; dashes where they are not counted."""
    if memory is None:
        return ["-", "-", "-"]
    return [format_bytes(memory.ram_bytes), format_bytes(memory.flash_bytes), update or "-"]
