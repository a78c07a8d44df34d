"""`fed-asi run`: simulate a fleet, or resume a run that was stopped."""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from fed_asi.commands.console import (
    LOST,
    STOPPED,
    add_output,
    answer,
    bar,
    beside,
    complain,
    console,
    say,
    show,
    stop_on_signals,
)
from fed_asi.commands.fleet_arguments import add_folders, add_overrides
from fed_asi.errors import ConfigError, FedAsiError, RunError
from fed_asi.texts import resume_line, visible

EXAMPLE = "fed-asi run fleet.toml --set train.lr=0.1"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("fleet", nargs="?", type=Path, metavar="FLEET.toml", help="the fleet file")
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="where runs are kept; default: runs")
    add_folders(parser)
    add_overrides(parser)
    parser.add_argument("--backend", choices=("flower", "loop"), help="Flower on Ray, or one plain process")
    parser.add_argument("--ray-address", metavar="ADDRESS", help="use a Ray cluster that is running there")
    parser.add_argument(
        "--resume",
        type=Path,
        metavar="RUN",
        help="go on with a run that was stopped, in place of a fleet file",
    )
    parser.add_argument(
        "--sink",
        action="append",
        default=[],
        metavar="NAME",
        help="also send each round's numbers there: tensorboard, mlflow, wandb; may be repeated",
    )
    add_output(parser, wide=True)


def main(given: argparse.Namespace) -> int:
    """Do the run, print its table, write its page, and return the exit code."""
    with bar("starting"):
        from fed_asi.results.now import Telling
        from fed_asi.results.progress import Terminal
        from fed_asi.results.sending import Sending

    config, folder = _resumed(given) if given.resume else _begun(given)
    resumed = given.resume is not None
    sinks = _sinks(given, folder)
    stop_on_signals()
    say(f"run: {folder}")
    try:
        with (
            Terminal(beside()) as terminal,
            Telling(terminal, folder) as telling,
            Sending(telling, sinks, folder, resumed=resumed) as watcher,
        ):
            backend_of(config.compute.backend)(
                config,
                folder,
                resume=resumed,
                data_dir=given.data_dir,
                weights_dir=given.weights_dir,
                watcher=watcher,
            )
    except KeyboardInterrupt:
        complain(f"stopped; go on with: {resume_line(folder)}")
        if config.compute.backend == "flower":
            from fed_asi.flower.simulation import leave

            leave(STOPPED)
        return STOPPED
    except FedAsiError as error:
        return _failed(error, folder, kept=resumed)
    return _shown(folder)


def _shown(folder: Path) -> int:
    """Print the result of a run, write its page, and return the exit code."""
    from fed_asi.results import report
    from fed_asi.results.store import RunStore

    found = report.show(folder, console())
    with bar("drawing the page"):
        page = report.write([folder])
    show(f"report: {visible(page)}")
    with RunStore.read(folder) as store:
        code = store.exit_code()
    answer(folder=folder, report=page, exit_code=code, **report.as_data(found))
    return code


def _begun(given: argparse.Namespace) -> tuple[Any, Path]:
    from fed_asi.fleets.file import load_config
    from fed_asi.results.lock import new_folder

    if given.fleet is None:
        raise ConfigError("run: give a fleet file, or --resume RUN")
    overrides = list(given.set)
    overrides += [f"compute.backend={given.backend}"] if given.backend else []
    overrides += [f"compute.ray_address={given.ray_address}"] if given.ray_address else []
    config = load_config(given.fleet, overrides, data_dir=given.data_dir)
    out = given.out or Path(os.environ.get("FED_ASI_RUNS_DIR", "runs"))
    return config, new_folder(out, config.name)


def _resumed(given: argparse.Namespace) -> tuple[Any, Path]:
    """Return the settings that the run was started with, and its folder; only where it runs may change."""
    from fed_asi.fleets.checks import check
    from fed_asi.results.store import RunStore

    if given.fleet is not None or given.set or given.out is not None:
        raise ConfigError(
            "run: --resume takes the settings of the run; leave out FLEET.toml, --set and --out"
        )
    with RunStore.read(given.resume) as store:
        config, folder = store.config(), store.folder
    changes = {"backend": given.backend, "ray_address": given.ray_address}
    compute = config.compute.model_copy(update={key: value for key, value in changes.items() if value})
    config = config.model_copy(update={"compute": compute})
    problems = check(config)
    if problems:
        raise ConfigError(problems)
    return config, folder


def _sinks(given: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Return the requested sinks. Raises ConfigError before anything starts, so that a new run's name stays free."""
    from fed_asi import sinks

    try:
        return {name: sinks.make(name, folder) for name in given.sink}
    except ConfigError:
        if given.resume is None:
            shutil.rmtree(folder, ignore_errors=True)
        raise


def backend_of(name: str) -> Callable[..., None]:
    """Return the function that does a whole run on that back end."""
    if name == "loop":
        from fed_asi.rounds.run import run_loop

        return run_loop
    from fed_asi.flower.simulation import run_flower

    return partial(run_flower, hasty=True)


def _failed(error: FedAsiError, folder: Path, kept: bool) -> int:
    """Print why a run stopped. If no round had begun, its folder is removed and its name is free again."""
    from fed_asi.results.store import RunStore

    # If not even its records could be created, there are no rounds to read.
    with contextlib.suppress(RunError), RunStore.read(folder) as store:
        kept = kept or bool(store.rounds())
    if not kept:
        shutil.rmtree(folder, ignore_errors=True)
        raise error
    complain(f"fed-asi: {error}")
    complain(f"what was recorded is kept; go on with: {resume_line(folder)}")
    return LOST
