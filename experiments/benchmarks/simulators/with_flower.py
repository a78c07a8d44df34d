"""The work in Flower, as in its PyTorch quickstart: each message builds the network and carries the whole state.

python with_flower.py WORK OUT, in an environment with `flwr[simulation]`.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Iterable
from functools import cache
from importlib.metadata import version
from pathlib import Path

os.environ |= {
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
}
os.environ.setdefault("FLWR_HOME", tempfile.mkdtemp(prefix="flower-"))

from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg
from same_work import Clock, Work, judge, one_thread, train_

app = ClientApp()


@cache
def work(folder: str) -> Work:
    """Return the work, opened once per process, like the quickstart's data set."""
    return Work.open(Path(folder))


@app.train()
def train(message: Message, context: Context) -> Message:  # noqa: ARG001 - Flower says it
    """Train on a client's images and send the state back."""
    one_thread()
    config = message.content["config"]
    known, client = work(str(config["folder"])), int(config["client"])
    model = known.model()
    model.load_state_dict(message.content["arrays"].to_torch_state_dict())
    train_(model, known.batches(int(config["server-round"]) - 1, client), known.settings.lr)
    counted = MetricRecord({"num-examples": len(known.shard(client))})
    content = RecordDict({"arrays": ArrayRecord(model.state_dict()), "metrics": counted})
    return Message(content, reply_to=message)


class InCohorts(FedAvg):
    """FedAvg that tells each node it drew which of the work's clients it is in this round."""

    cohorts: tuple[tuple[int, ...], ...] = ()
    clock: Clock

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Return a message for each client of the round."""
        self.clock.begin()
        messages = list(super().configure_train(server_round, arrays, config, grid))
        for message, client in zip(messages, self.cohorts[server_round - 1], strict=True):
            own = ConfigRecord({**message.content["config"], "client": client})
            message.content = RecordDict({"arrays": arrays, "config": own})
        return messages


def main(folder: Path, out: Path) -> None:
    from flwr.simulation import run_simulation

    one_thread()
    known, clock = work(str(folder)), Clock()
    settings, server = known.settings, ServerApp()
    judged = known.model()

    def accuracy_of(server_round: int, arrays: ArrayRecord) -> MetricRecord:
        judged.load_state_dict(arrays.to_torch_state_dict())
        accuracy = judge(judged, known.test)
        if server_round > 0:
            clock.end(accuracy)
        return MetricRecord({"accuracy": accuracy})

    @server.main()
    def serve(grid: Grid, context: Context) -> None:  # noqa: ARG001
        while len(list(grid.get_node_ids())) < settings.clients:
            time.sleep(0.05)
        share = len(settings.cohorts[0]) / settings.clients
        strategy = InCohorts(
            fraction_train=share, fraction_evaluate=0.0, min_available_nodes=settings.clients
        )
        strategy.cohorts, strategy.clock = settings.cohorts, clock
        strategy.start(
            grid=grid,
            initial_arrays=ArrayRecord(judged.state_dict()),
            num_rounds=settings.rounds,
            train_config=ConfigRecord({"folder": str(folder)}),
            evaluate_fn=accuracy_of,
        )

    init = {"address": "local", "num_cpus": settings.workers, "include_dashboard": False}
    resources = {"num_cpus": 1, "num_gpus": 0.0}
    backend = {"init_args": init, "client_resources": resources}
    run_simulation(server, app, settings.clients, backend_config=backend)
    clock.write(out, judged.state_dict(), flwr=version("flwr"), ray=version("ray"))


if __name__ == "__main__":
    import with_flower  # by name, so that Ray's workers can import what they receive

    with_flower.main(Path(sys.argv[1]), Path(sys.argv[2]))
