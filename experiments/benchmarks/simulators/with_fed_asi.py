"""The work in fed_asi: a run of the fleet file, on Flower and Ray or on the plain loop.

python with_fed_asi.py WORK OUT flower|loop, in an environment with fed_asi.
"""

from __future__ import annotations

import json
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

from same_work import Clock, Settings, Work, one_thread

from fed_asi.files import round_file, unpack
from fed_asi.fleets.config import RunConfig
from fed_asi.fleets.file import load_config
from fed_asi.results.progress import Unwatched
from fed_asi.results.schema import RoundRecord
from fed_asi.rounds.run import run_loop

FLEET = Path(__file__).with_name("fleet.toml")


class EachRound(Unwatched):
    """Records when each round ended."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock

    def round_started(self, round: int, rounds: int, asked: int) -> None:  # noqa: ARG002 - a watcher's
        """Start the clock."""
        self.clock.begin()

    def round_done(self, record: RoundRecord) -> None:
        """Record the time of a round, except of round 0."""
        if record.round > 0:
            self.clock.end(float(record.accuracy or 0.0))


def config_of(settings: Settings, start: Path | None, backend: str) -> RunConfig:
    """Return the run's settings. start: the file with its initial weights; None: drawn from the seed."""
    said: dict[str, Any] = {
        "seed": settings.seed,
        "rounds": settings.rounds,
        "cohort": len(settings.cohorts[0]),
        "model.name": f"./cifar_networks.py:{settings.network}",
        "model.resolution": settings.resolution,
        "data.source": settings.source,
        "data.public": settings.public_images,
        "data.limit": settings.images,
        "data.test_limit": settings.test_images,
        "sharding.alpha": settings.alpha,
        "method.layers": settings.layers,
        "train.epochs": settings.epochs,
        "train.lr": settings.lr,
        "groups.clients.count": settings.clients,
        "groups.clients.batch_size": settings.batch,
        "groups.clients.micro_batch": settings.batch,
        "compute.backend": backend,
        "compute.workers": settings.workers if backend == "flower" else None,
        "model.weights": None if start is None else str(start),
    }
    overrides = [f"{key}={json.dumps(value)}" for key, value in said.items() if value is not None]
    return load_config(FLEET, overrides, data_dir=None if settings.data is None else Path(settings.data))


def main(folder: Path, out: Path, backend: str) -> None:
    one_thread()
    work, clock = Work.open(folder), Clock()
    settings = work.settings
    config = config_of(settings, folder / "start.pt", backend)
    data_dir = None if settings.data is None else Path(settings.data)
    with tempfile.TemporaryDirectory() as runs:
        run = Path(runs) / "run"
        if backend == "loop":
            run_loop(config, run, data_dir=data_dir, watcher=EachRound(clock))
        else:
            from fed_asi.flower.simulation import run_flower

            run_flower(config, run, data_dir=data_dir, watcher=EachRound(clock))
        tensors = unpack(round_file(run / "checkpoints", settings.rounds))["tensors"]
    state = work.model().state_dict() | tensors
    clock.write(
        out, state, fed_asi=version("fed_asi"), **({"flwr": version("flwr")} if backend != "loop" else {})
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])
