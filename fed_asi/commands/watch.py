"""`fed-asi watch`: a run's page in the browser, live while the run goes on.

    fed-asi watch runs/demo

Served to this machine alone; Ctrl-C ends it, and the run goes on. Of a folder of runs it shows the newest.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from fed_asi.commands.console import OK, say, show, stop_on_signals
from fed_asi.errors import ConfigError
from fed_asi.texts import visible

PORT = 8088


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument(
        "run", nargs="?", type=Path, metavar="RUN",
        help="a run's folder, or a folder of runs, of which the newest is shown; default: runs",
    )  # fmt: skip
    parser.add_argument(
        "--port", type=int, default=PORT, help=f"on this machine; default: {PORT}; 0: a free one"
    )


def main(given: argparse.Namespace) -> int:
    """Serve the page until Ctrl-C, and return the exit code. Raises ConfigError for a port that cannot be had."""
    from fed_asi.results.serving import Pages, server

    home = given.run or Path(os.environ.get("FED_ASI_RUNS_DIR", "runs"))
    if home.name == "run.sqlite":
        home = home.parent
    if not 0 <= given.port < 1 << 16:
        raise ConfigError(f"--port {given.port} is no port: a number from 0 to 65535")
    try:
        serving = server(Pages(home), "127.0.0.1", given.port)
    except OSError as error:
        raise ConfigError(
            f"port {given.port} cannot be had ({error.strerror}): choose another one, such as --port {given.port + 1}"
        ) from None
    stop_on_signals()
    show(f"{visible(home)} is at http://127.0.0.1:{serving.server_address[1]} (stop with Ctrl-C)")
    try:
        serving.serve_forever()
    except KeyboardInterrupt:
        say("stopped watching; the run goes on")
    finally:
        serving.server_close()
    return OK
