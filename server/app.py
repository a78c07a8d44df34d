"""The Flower ServerApp of `flwr run` and of deployments: waits for the devices, then does the rounds."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import torch
from flwr.app import Context
from flwr.serverapp import Grid, ServerApp
from rich.console import Console

from fed_asi.config import RunConfig
from fed_asi.config_file import load_config
from fed_asi.errors import ConfigError, RunError
from fed_asi.prepare import prepare
from fed_asi.progress import Terminal
from fed_asi.records import FILE_NAME, RunStore
from fed_asi.rounds import conduct, recording
from fed_asi.runlock import new_folder
from fed_asi.workplace import address_of, workplace_folder
from server.engine import ENGINE, quicken
from server.executor import FlowerExecutor, Waiting
from server.simulation import workers

SIMULATED = "InMemoryGrid"

if ENGINE in sys.modules:
    quicken()

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Do the run that run_config names: fleet (a file), out (a folder), resume (go on where it stopped)."""
    config = load_config(find_fleet(str(context.run_config["fleet"])))
    folder, resume = run_folder(
        config, str(context.run_config.get("out", "")), bool(context.run_config.get("resume", False))
    )
    console = Console(stderr=True, width=120)
    console.print(f"run: {folder}", highlight=False)
    with Terminal(console) as watcher, recording(config, folder, resume) as store:
        torch.set_num_threads(config.compute.threads)
        place = prepare(config, workplace_folder(folder), watcher=watcher)
        waiting = waiting_for(grid, config)
        run = address_of(place.folder, config)
        executor = FlowerExecutor(grid, config.num_devices, run, waiting, folder / "devices")
        executor.find_devices()
        conduct(place, store, executor, watcher)
    if code := RunStore.read(folder).exit_code():
        raise RunError(f"not every round happened or not every device is accounted for (exit code {code})")


def find_fleet(name: str) -> Path:
    """Return the fleet file, looked for from here, then beside this app. Raises ConfigError without one."""
    for path in (Path(name), Path(__file__).parents[1] / name):
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


def waiting_for(grid: Grid, config: RunConfig) -> Waiting:
    """Return how to wait: in a simulation as many devices work as there are workers, deployed all of them."""
    if type(grid).__name__ == SIMULATED:
        return Waiting(lambda: False, workers(config))
    return Waiting(lambda: False, None, nodes_seconds=60.0, poll_seconds=0.2)
