"""The work in fluke, through its own interface: FedAVG over clients that hold their data in its FastDataLoader.

python with_fluke.py WORK OUT, in an environment with `fluke-fl`.
"""

# ruff: noqa: E402 - fluke's imports need the names of operators first
from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

# A torchvision with operators compiled for another build of torch can be imported once these have a name.
OPERATORS = torch.library.Library("torchvision", "FRAGMENT")
for operator in ("nms", "qnms"):
    OPERATORS.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")

from fluke import DDict, FlukeENV
from fluke.algorithms.fedavg import FedAVG
from fluke.client import Client
from fluke.data import FastDataLoader
from fluke.evaluation import ClassificationEval
from fluke.server import Server
from fluke.utils import FederationObserver
from same_work import JUDGED_AT_ONCE, Clock, Work, one_thread
from torch import Tensor


class InOrder(FastDataLoader):
    """A client's images in the work's order, which differs by round, as fluke's own shuffling would."""

    def __init__(self, work: Work, client: int) -> None:
        rows = torch.from_numpy(work.shard(client))
        settings = work.settings
        super().__init__(
            work.images[rows],
            work.labels[rows],
            num_labels=settings.classes,
            batch_size=settings.batch,
            skip_singleton=False,
        )
        asked = [round for round, cohort in enumerate(settings.cohorts) if client in cohort]
        self._orders = iter([torch.searchsorted(rows, work.ordered(round, client)) for round in asked])

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        order = next(self._orders)
        return zip(*(tensor[order].split(self.batch_size) for tensor in self.tensors), strict=True)


class AskedInOrder(Server):
    """A server that asks the work's cohorts."""

    cohorts: Iterator[Sequence[int]]

    def get_eligible_clients(self, eligible_perc: float) -> Sequence[Client]:  # noqa: ARG002 - the cohorts say it
        """Return the clients of the next round."""
        return [self.clients[client] for client in next(self.cohorts)]


class InCohorts(FedAVG):
    """Federated averaging over the work's cohorts."""

    def get_server_class(self) -> type[Server]:
        """Return the class of its server."""
        return AskedInOrder


class Data:
    """What FedAVG accepts as a splitter: the clients' data, which are split already."""

    def __init__(self, work: Work) -> None:
        self.work = work

    def assign(self, n_clients: int, batch_size: int) -> Any:  # noqa: ARG002 - the work says them
        """Return the images of the clients and of the server."""
        clients = [InOrder(self.work, client) for client in range(n_clients)]
        server = FastDataLoader(
            *self.work.test, num_labels=self.work.settings.classes, batch_size=JUDGED_AT_ONCE
        )
        return (clients, [None] * n_clients), server


class EachRound(FederationObserver):
    """Records when each round ended."""

    def __init__(self, clock: Clock) -> None:
        self.clock, self.accuracy = clock, 0.0

    def start_round(self, round: int, global_model: Any) -> None:  # noqa: ARG002 - fluke says it
        """Start the clock."""
        self.clock.begin()

    def server_evaluation(self, round: int, eval_type: str, evals: dict[str, float], **_: Any) -> None:  # noqa: ARG002
        """Keep the accuracy."""
        self.accuracy = float(evals["accuracy"])

    def end_round(self, round: int) -> None:  # noqa: ARG002
        """Record the time."""
        self.clock.end(self.accuracy)


def main(folder: Path, out: Path) -> None:
    one_thread()
    work, clock = Work.open(folder), Clock()
    settings, environment = work.settings, FlukeENV()
    environment.set_seed(settings.seed)
    environment.set_device("cpu")
    environment.set_evaluator(ClassificationEval(eval_every=1, n_classes=settings.classes))
    environment.set_eval_cfg(pre_fit=False, post_fit=False, locals=False, server=True)
    client = {
        "batch_size": settings.batch,
        "local_epochs": settings.epochs,
        "loss": torch.nn.CrossEntropyLoss,
        "optimizer": {"name": "SGD", "lr": settings.lr},
        "scheduler": {"name": "StepLR", "step_size": 1, "gamma": 1},
    }
    AskedInOrder.cohorts = iter(settings.cohorts)
    hyper_params = DDict(client=client, server={"weighted": True, "lr": 1.0}, model=work.model())
    algorithm = InCohorts(settings.clients, Data(work), hyper_params)
    algorithm.set_callbacks([EachRound(clock)])
    algorithm.run(n_rounds=settings.rounds, eligible_perc=len(settings.cohorts[0]) / settings.clients)
    clock.write(out, algorithm.server.model.state_dict(), fluke=version("fluke-fl"))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
