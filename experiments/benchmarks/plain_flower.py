"""The counterpart of simulation.py: the same fleet, written as in Flower's own PyTorch quickstart.

Each message builds the network, loads the global state, runs the whole network over the client's images with plain
PyTorch layers, and sends the whole state back. FedAvg averages. Then as many clients evaluate the average on their
held-out images, and the server evaluates it on the test images. fed_asi's layers, features and round loop are not used;
its data loading, network, shards and learning rates are, so that the work is the same.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterable
from functools import cache
from pathlib import Path

import numpy as np
import torch
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg
from torch import nn

from fed_asi import data, models
from fed_asi.compression.tune import tune_last_
from fed_asi.training.sgd import learning_rate

RESOLUTION, LAYERS, BATCH = 128, 4, 32
app = ClientApp()


@cache
def dataset() -> data.Dataset:
    """Return CIFAR-10, once per process, as the quickstart's global dataset does."""
    return data.load("cifar10")


@cache
def shards() -> dict[str, np.ndarray]:
    """Return each client's rows of x_train: "3" for training, "3-holdout" for evaluation."""
    with np.load(os.environ["PLAIN_SHARDS"]) as rows:
        return {name: rows[name] for name in rows.files}


def network() -> nn.Module:
    """Return MCUNet with its ImageNet weights and 10 classes; the last layers train."""
    model = models.build("mcunet-in1", 10, "imagenet", RESOLUTION, seed=0)
    tune_last_(model, LAYERS)
    return model


def batch(images: np.ndarray) -> torch.Tensor:
    """Return normalised images at the network's resolution, one batch at a time."""
    pixels = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255
    large = nn.functional.interpolate(pixels, (RESOLUTION, RESOLUTION), mode="bilinear")
    mean, std = (torch.tensor(part).view(1, 3, 1, 1) for part in models.normalisation("mcunet-in1"))
    return (large - mean) / std


def received(message: Message) -> nn.Module:
    """Return the network with the global state of a message."""
    torch.set_num_threads(1)
    model = network()
    model.load_state_dict(message.content.array_records["arrays"].to_torch_state_dict())
    return model


@app.train()
def train(message: Message, context: Context) -> Message:
    """Train one local epoch and send the state back."""
    model = received(message)
    rows = shards()[str(context.node_config["partition-id"])]
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(trained, lr=float(message.content["config"]["lr"]), weight_decay=1e-4)
    model.train()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
    generator = torch.Generator().manual_seed(int(context.node_config["partition-id"]))
    for own in torch.from_numpy(rows)[torch.randperm(len(rows), generator=generator)].split(BATCH):
        labels = torch.from_numpy(dataset().y_train[own.numpy()])
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(batch(dataset().x_train[own.numpy()])), labels)
        loss.backward()
        nn.utils.clip_grad_norm_(trained, 2.0)
        optimizer.step()
    content = RecordDict(
        {
            "arrays": ArrayRecord(model.state_dict()),
            "metrics": MetricRecord({"num-examples": len(rows)}),
        }
    )
    return Message(content, reply_to=message)


@app.evaluate()
def evaluate(message: Message, context: Context) -> Message:
    """Evaluate the average on the client's held-out images."""
    rows = shards()[f"{context.node_config['partition-id']}-holdout"]
    right = correct(received(message), dataset().x_train[rows], dataset().y_train[rows])
    metrics = {"accuracy": right / max(1, len(rows)), "num-examples": max(1, len(rows))}
    return Message(RecordDict({"metrics": MetricRecord(metrics)}), reply_to=message)


def correct(model: nn.Module, images: np.ndarray, labels: np.ndarray) -> int:
    """Return how many images the whole network classifies correctly."""
    model.eval()
    right = 0
    with torch.inference_mode():
        for start in range(0, len(labels), 128):
            predicted = model(batch(images[start : start + 128])).argmax(1).numpy()
            right += int((predicted == labels[start : start + 128]).sum())
    return right


class Timed(FedAvg):
    """FedAvg with a cosine learning rate, which records when each round began and when it was averaged."""

    rounds = 1

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Record the round's start, and set its learning rate."""
        if server_round == 1:
            self.begun, self.averaged = list[float](), list[float]()
        self.begun.append(time.perf_counter())
        config["lr"] = learning_rate(0.05, 0.1, "cosine", server_round, self.rounds)
        return list(super().configure_train(server_round, arrays, config, grid))

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Average, and record the time."""
        result = super().aggregate_train(server_round, replies)
        self.averaged.append(time.perf_counter())
        return result


def judged(_round: int, arrays: ArrayRecord) -> MetricRecord:
    """Return the average's test accuracy, evaluated by the server on all cores, which is torch's default."""
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    model = network()
    model.load_state_dict(arrays.to_torch_state_dict())
    right = correct(model, dataset().x_test, dataset().y_test)
    return MetricRecord({"accuracy": right / len(dataset().y_test)})


def main(out: Path, rounds: int, clients: int, cohort: int, workers: int) -> None:
    """Run the plain app and write {rounds, training: seconds of each, accuracy: of each} as JSON."""
    from flwr.simulation import run_simulation

    found: dict[str, object] = {}
    server = ServerApp()

    @server.main()
    def serve(grid: Grid, _context: Context) -> None:
        while len(list(grid.get_node_ids())) < clients:
            time.sleep(0.1)
        share = cohort / clients
        strategy = Timed(fraction_train=share, fraction_evaluate=share, min_available_nodes=clients)
        strategy.rounds = rounds
        result = strategy.start(
            grid=grid,
            initial_arrays=ArrayRecord(network().state_dict()),
            num_rounds=rounds,
            train_config=ConfigRecord({}),
            evaluate_fn=judged,
        )
        ended = time.perf_counter()
        found["rounds"] = list(np.diff([*strategy.begun, ended]))
        found["training"] = [b - a for a, b in zip(strategy.begun, strategy.averaged, strict=True)]
        judgements = sorted(result.evaluate_metrics_serverapp.items())
        found["accuracy"] = [float(metrics["accuracy"]) for _, metrics in judgements]

    resources = {"num_cpus": 1, "num_gpus": 0.0}
    config = {
        "init_args": {"address": "local", "num_cpus": workers, "include_dashboard": False},
        "client_resources": resources,
    }
    run_simulation(server, app, clients, backend_config=config)
    out.write_text(json.dumps(found))


if __name__ == "__main__":
    import plain_flower  # by name, so that Ray's workers can import what they receive

    plain_flower.main(Path(sys.argv[1]), *(int(word) for word in sys.argv[2:6]))
