"""`fed-asi check`: load all that a fleet file names, plan each group, and start nothing."""

from __future__ import annotations

import argparse
from pathlib import Path

from fed_asi.commands.console import LOST, OK, show
from fed_asi.fleets.file import load_config
from fed_asi.fleets.pace_checks import asks_time
from fed_asi.planning.columns import columns
from fed_asi.texts import visible
from fed_asi.units import format_bytes
from fed_asi.workplace.ahead import Ahead, look_ahead


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("fleet", type=Path, metavar="FLEET.toml", help="the fleet file")
    parser.add_argument("--data-dir", type=Path, help="the data's folder; default: FED_ASI_DATA_DIR")
    parser.add_argument("--weights-dir", type=Path, help="the weights' folder; default: FED_ASI_WEIGHTS_DIR")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="such as train.lr=0.1"
    )


def main(given: argparse.Namespace) -> int:
    """Print the plan of each kind of device, and return the exit code: 1 where no device has one.

    Raises ConfigError with all of the file's problems, MissingDataError and WeightsError.
    """
    config = load_config(given.fleet, given.set, data_dir=given.data_dir)
    for address, text in config.code.items():
        show(f"code: {visible(address)}, {len(text.splitlines())} lines")
    found = look_ahead(config, data_dir=given.data_dir, weights_dir=given.weights_dir)
    show(
        columns(
            [
                ("group", "devices", "from round", "budget", "planned", "micro-batch", "method"),
                *map(_row, found),
            ]
        )
    )
    if config.model.weights == "public":
        show("The server trains the network first; ranks may then come out otherwise.")
    if asks_time(config):
        show("Planned by bytes alone; what a round may take of a device's time counts when the run begins.")
    if all(one.attempt is None for one in found):
        show("No device has a plan: the run would train nothing.")
        return LOST
    show("All of it can be used; nothing was started.")
    return OK


def _row(one: Ahead) -> tuple[str, ...]:
    who = visible(one.group), str(one.devices), str(one.round), format_bytes(one.resources.budget_bytes)
    if one.attempt is None:
        return (*who, "none", "", visible(one.cause.partition(" (")[0]))
    plan, policy = one.attempt.plan, one.attempt.policy
    kinds = "+".join(dict.fromkeys(method.kind for method in plan.methods.values()))
    said = kinds if policy is None else f"{kinds} by {policy}"
    return (*who, format_bytes(plan.planned_bytes), str(plan.micro_batch), visible(said))
