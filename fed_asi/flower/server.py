"""The server's side of Flower under `flwr run` and in deployments: wait for the devices, then do the rounds."""

from __future__ import annotations

import os
import sys
from functools import partial
from pathlib import Path

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp
from rich.console import Console

from fed_asi.errors import ConfigError, RunError
from fed_asi.fleets.config import RunConfig
from fed_asi.fleets.file import load_config
from fed_asi.fleets.gpu_share import workers
from fed_asi.flower.executor import FlowerExecutor
from fed_asi.flower.flower_private import ENGINE, quicken, simulated_nodes
from fed_asi.flower.waiting import Waiting
from fed_asi.flower.worker import state_folder
from fed_asi.results.lock import new_folder
from fed_asi.results.now import Telling
from fed_asi.results.progress import Terminal
from fed_asi.results.rich_text import plain
from fed_asi.results.schema import FILE_NAME
from fed_asi.results.store import RunStore
from fed_asi.rounds.run import conduct, recording
from fed_asi.workplace.address import address_of, workplace_folder
from fed_asi.workplace.prepare import prepare


def server_app(home: Path) -> ServerApp:
    """Return the ServerApp that does the run that `run_config` names.

    home: the app's own folder, from which a fleet file may be named too.
    """
    if ENGINE in sys.modules:
        quicken()
    app = ServerApp()
    app.main()(partial(serve, home))
    return app


def serve(home: Path, grid: Grid, context: Context) -> None:
    """Do the run that run_config names.

    Its keys: fleet (a file), out (a folder), resume (go on where it stopped), deployed (devices are nodes of their
    own, not processes of a simulation).
    """
    config = load_config(find_fleet(str(context.run_config["fleet"]), home))
    folder, resume = run_folder(
        config, str(context.run_config.get("out", "")), bool(context.run_config.get("resume", False))
    )
    console = Console(stderr=True, width=120)
    console.print(plain(f"run: {folder}"), soft_wrap=True)
    with (
        Terminal(console) as terminal,
        recording(config, folder, resume) as store,
        Telling(terminal, folder) as watcher,
    ):
        deployed = bool(context.run_config.get("deployed", False))
        done = store.last_round
        place = prepare(config, workplace_folder(folder), watcher=watcher, early=not deployed, after=done)
        with place.going_on():
            waiting, states = waiting_for(deployed, config), None if deployed else folder / "devices"
            run = address_of(place.folder, config)
            simulated = None if deployed else simulated_nodes
            executor = FlowerExecutor(grid, config.num_devices, run, waiting, states, store.note, simulated)
            executor.find_devices()
            conduct(place, store, executor, watcher, None if deployed else state_folder(run))
    with RunStore.read(folder) as ended:
        code, missing = ended.exit_code(), ended.missing()
    if code:
        raise RunError(f"{'; '.join(missing) or 'the run did not finish'} (exit code {code})")


def find_fleet(name: str, home: Path) -> Path:
    """Return the fleet file, looked for from here, then beside this app. Raises ConfigError without one."""
    for path in (Path(name), home / name):
        if path.is_file():
            return path
    raise ConfigError(f"no fleet file {name}: give one with --run-config 'fleet=\"/path/to/FLEET.toml\"'")


def run_folder(config: RunConfig, out: str, resume: bool) -> tuple[Path, bool]:
    """Return the run's folder and whether it holds a run to go on with."""
    runs = Path(out or os.environ.get("FED_ASI_RUNS_DIR", "runs"))
    if not resume:
        return new_folder(runs, config.name), False
    folder = runs / config.name
    return folder, (folder / FILE_NAME).is_file()


def waiting_for(deployed: bool, config: RunConfig) -> Waiting:
    """Return how to wait: in a simulation as many devices work as there are workers, deployed all of them."""
    if deployed:
        return Waiting(lambda: False, None, nodes_seconds=60.0, poll_seconds=0.2, one_by_one=True)
    return Waiting(lambda: False, workers(config))
