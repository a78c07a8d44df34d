"""`fed-asi watch`: a run's page in the browser, live while the run goes on.

    fed-asi watch runs/demo

Only this machine can reach the page; Ctrl-C ends it, and the run goes on. For a folder of runs, the newest is shown. If
there is no run, the command says so at once; with --wait it waits for one.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from fed_asi.commands.console import OK, add_output, answer, say, show, stop_on_signals
from fed_asi.errors import ConfigError
from fed_asi.texts import clipped, visible

EXAMPLE = "fed-asi watch runs/demo"
WAITING = "No run here yet. This page shows it as soon as it starts."
PORT = 8088
MOST_NAMED = 5  # runs that a message names


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument(
        "run", nargs="?", type=Path, metavar="RUN",
        help="a run's folder, or a folder of runs, of which the newest is shown; default: runs",
    )  # fmt: skip
    parser.add_argument(
        "--port", type=int, default=PORT, help=f"on this machine; default: {PORT}; 0: a free one"
    )
    parser.add_argument(
        "--wait",
        action="store_true",
        help="wait for a run that has not started yet; default: say that there is none",
    )
    add_output(parser)


def main(given: argparse.Namespace) -> int:
    """Serve the page until Ctrl-C, and return the exit code.

    Raises ConfigError if there is no run, or if the port cannot be used.
    """
    from fed_asi.results.serving import Pages, server

    home = given.run or Path(os.environ.get("FED_ASI_RUNS_DIR", "runs"))
    if home.name == "run.sqlite":
        home = home.parent
    pages = Pages(home, starting=lambda: WAITING) if given.wait else Pages(home)
    if not given.wait and not pages.expected():
        raise ConfigError(_nothing(home))
    if not 0 <= given.port < 1 << 16:
        raise ConfigError(f"--port {given.port}: must be a number from 0 to 65535")
    try:
        serving = server(pages, "127.0.0.1", given.port)
    except OSError as error:
        raise ConfigError(
            f"port {given.port} is not available ({error.strerror}): choose another one, or --port 0 for any free one"
        ) from None
    stop_on_signals()
    address = f"http://127.0.0.1:{serving.server_address[1]}"
    show(f"{visible(home)} is at {address} (stop with Ctrl-C)")
    answer(folder=home, address=address)
    sys.stdout.flush()  # so that readers of a pipe get the address while this still runs
    try:
        serving.serve_forever()
    except KeyboardInterrupt:
        say("stopped watching; the run goes on")
    finally:
        serving.server_close()
    return OK


def _nothing(home: Path) -> str:
    """Return the message for a folder without a run: the runs beside it, and how to wait for one."""
    from fed_asi.results.serving import Pages

    beside = [visible(run) for run in Pages(home.parent).runs()] if home.name else []
    known = f"name one that is there ({clipped(', '.join(beside[:MOST_NAMED]), 200)})" if beside else ""
    first = known or "start one with fed-asi run FLEET.toml"
    return f"no run in {visible(home)}: {first}, or add --wait to wait for it to start"
