"""`fed-asi compose`: write a fleet as containers (a docker-compose.yml) and, with --up, start it.

The memory limit of each device's container is its budget plus what its processes need. Before anything starts, the
container engine and the machine's memory are checked.
"""

from __future__ import annotations

import argparse
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from typing import TextIO

from fed_asi.commands.compose_file import (
    PAGE_BYTES,
    RESERVE_BYTES,
    RUNNER_BYTES,
    SUPERLINK_BYTES,
    compose_text,
    limit_bytes,
    mount,
)
from fed_asi.commands.console import add_output, answer, bar, show
from fed_asi.errors import ConfigError
from fed_asi.files import write_text
from fed_asi.fleets.file import load_config
from fed_asi.fleets.fleet import Fleet, build
from fed_asi.gpus import CPU
from fed_asi.machine import machine_bytes
from fed_asi.texts import visible
from fed_asi.units import format_bytes, parse_bytes

# A device's activation budget is passed with --node-config. Its container's memory limit is what its processes were
# measured to need, plus a margin far below the hundreds of MiB that exceeding the budget would take.
EXAMPLE = "fed-asi compose fleet.toml --out my-fleet.yml --up"


def check_fits(fleet: Fleet, memory: int) -> None:
    """Raise ConfigError, with the number of devices that fit, if all limits together exceed the machine's memory."""
    fixed = SUPERLINK_BYTES + RUNNER_BYTES + PAGE_BYTES + RESERVE_BYTES
    total, fitting = fixed, 0
    for device in fleet:
        total += limit_bytes(device)
        fitting += total <= memory
    if total > memory:
        raise ConfigError(
            f"{len(fleet)} devices in containers need {format_bytes(total)}, this machine has "
            f"{format_bytes(memory)}: {fitting} fit. Lower the groups' counts, or simulate the fleet "
            "with fed-asi run"
        )


def check_device(name: str) -> None:
    """Raise ConfigError if a fleet file computes on a GPU."""
    if name != CPU.type:
        raise ConfigError(
            f'compute.device: "{name}", but containers are given no GPU: use "cpu", or simulate the fleet '
            "with fed-asi run"
        )


def check_engine() -> None:
    """Raise ConfigError if no container engine answers."""
    if shutil.which("docker") is None:
        raise ConfigError("no container engine here: install Docker, or use fed-asi run, which needs none")
    for command, problem in (
        (["docker", "info"], "Docker does not answer: start it, or join the group docker"),
        (["docker", "compose", "version"], "Docker has no compose plugin: install docker-compose-plugin"),
    ):
        try:
            done = subprocess.run(command, capture_output=True, check=False, timeout=60)
        except subprocess.TimeoutExpired:  # a remote engine that cannot be reached
            raise ConfigError(problem) from None
        if done.returncode:
            raise ConfigError(problem)


def check_port(port: int) -> None:
    """Raise ConfigError if another program already listens on the report's port."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            raise ConfigError(
                f"port {port} is in use: choose another one, such as FED_ASI_PORT={port + 1}"
            ) from None


def up(file: Path, out: TextIO | None = None) -> int:
    """Start the fleet of a compose file and return its runner's exit code. out: where its output goes; None: stdout."""
    with bar("asking Docker"):
        check_engine()
    port = os.environ.get("FED_ASI_PORT", "8080")
    if not (port.isascii() and port.isdigit() and 0 < int(port) < 1 << 16):
        raise ConfigError(f"FED_ASI_PORT is {port!r}, which is not a port number; use 8081, for example")
    check_port(int(port))
    command = ["docker", "compose", "--file", str(file), "up", "--build", "--abort-on-container-exit"]
    return subprocess.run([*command, "--exit-code-from", "runner"], check=False, stdout=out).returncode


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("fleet", type=Path, metavar="FLEET.toml", help="the fleet file")
    parser.add_argument(
        "--out", type=Path, metavar="FILE", default=Path("docker-compose.yml"), help="the file to write"
    )
    parser.add_argument("--up", action="store_true", help="start it as well, and exit with the run's result")
    parser.add_argument(
        "--memory",
        metavar="SIZE",
        help='the memory of the machine that will run it, such as "16 GiB"; default: this one\'s',
    )
    parser.add_argument("--data-dir", type=Path, metavar="FOLDER", help="the data's folder, read-only inside")
    parser.add_argument(
        "--weights-dir", type=Path, metavar="FOLDER", help="the pretrained weights' folder, read-only inside"
    )
    add_output(parser)


def main(given: argparse.Namespace) -> int:
    """Write the compose file of a fleet and, with --up, start it; return the exit code.

    Raises ConfigError for a fleet file with problems, a fleet too large for the machine, and a missing engine.
    """
    config = load_config(given.fleet, data_dir=given.data_dir)
    check_device(config.compute.device)
    check_fits(build(config), parse_bytes(given.memory) or machine_bytes())
    mounts = [
        mount(source, inside, given.out.parent)
        for source, inside in ((given.data_dir, "/data"), (given.weights_dir, "/weights"))
        if source is not None
    ]
    write_text(given.out, compose_text(config, given.fleet, given.out.parent, mounts))
    show(f"{visible(given.out)}: {config.num_devices} devices, {config.rounds} rounds")
    answer(file=given.out, devices=config.num_devices, rounds=config.rounds)
    return up(given.out, sys.stderr if given.json else None) if given.up else 0
