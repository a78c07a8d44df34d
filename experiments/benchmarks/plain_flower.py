"""The rival of simulation.py: the same fleet as Flower's own PyTorch quickstart would write it.

Each message builds the network, loads the global state, runs the whole network over the client's images with
plain PyTorch layers, and sends the whole state back; FedAvg averages. Nothing of fed_asi's layers, features
and round loop is used; its data loading, network and shards are, so that the work is the same.
"""

from __future__ import annotations

import json
import os
import sys
import time
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
from fed_asi.data.images import to_batch
from fed_asi.tune import tune_last_

RESOLUTION, LAYERS, BATCH = 128, 4, 32
app = ClientApp()


@cache
def dataset() -> data.Dataset:
    """Return CIFAR-10, once per process, as the quickstart's global dataset does."""
    return data.load("cifar10")


@cache
def shards() -> dict[str, np.ndarray]:
    """Return each client's rows of x_train."""
    with np.load(os.environ["PLAIN_SHARDS"]) as rows:
        return {name: rows[name] for name in rows.files}


def network() -> nn.Module:
    """Return MCUNet with its ImageNet weights and 10 classes, the last layers trainable."""
    model = models.build("mcunet-in1", 10, "imagenet", RESOLUTION, seed=0)
    tune_last_(model, LAYERS)
    return model


def batch(images: np.ndarray) -> torch.Tensor:
    """Return normalised images at the network's resolution."""
    return to_batch(images, RESOLUTION, *models.normalisation("mcunet-in1"))


@app.train()
def train(message: Message, context: Context) -> Message:
    """Train one local epoch and send the state back."""
    torch.set_num_threads(1)
    model = network()
    model.load_state_dict(message.content.array_records["arrays"].to_torch_state_dict())
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


class Timed(FedAvg):
    """FedAvg that notes when each round's updates were averaged."""

    moments: list[float]

    def configure_train(self, *args: object, **kwargs: object) -> object:
        """Note the first round's start."""
        self.moments = getattr(self, "moments", [time.perf_counter()])
        return list(super().configure_train(*args, **kwargs))

    def aggregate_train(self, *args: object, **kwargs: object) -> object:
        """Average and note the time."""
        result = super().aggregate_train(*args, **kwargs)
        self.moments.append(time.perf_counter())
        return result


def accuracy(model: nn.Module) -> float:
    """Return the accuracy on the test images, through the whole network."""
    model.eval()
    right = 0
    with torch.inference_mode():
        for start in range(0, len(dataset().y_test), 128):
            predicted = model(batch(dataset().x_test[start : start + 128])).argmax(1).numpy()
            right += int((predicted == dataset().y_test[start : start + 128]).sum())
    return right / len(dataset().y_test)


def main(out: Path, rounds: int, clients: int, cohort: int, workers: int) -> None:
    """Run the plain app and write {rounds: seconds of each, accuracy, seconds} as JSON."""
    from flwr.simulation import run_simulation

    started = time.perf_counter()
    found: dict[str, object] = {}
    server = ServerApp()

    @server.main()
    def serve(grid: Grid, _context: Context) -> None:
        while len(list(grid.get_node_ids())) < clients:
            time.sleep(0.1)
        share = cohort / clients
        strategy = Timed(fraction_train=share, fraction_evaluate=0.0, min_available_nodes=clients)
        result = strategy.start(
            grid=grid,
            initial_arrays=ArrayRecord(network().state_dict()),
            num_rounds=rounds,
            train_config=ConfigRecord({"lr": 0.05}),
        )
        found["rounds"] = list(np.diff(strategy.moments))
        found["seconds"] = time.perf_counter() - started
        torch.set_num_threads(1)
        model = network()
        model.load_state_dict(result.arrays.to_torch_state_dict())
        found["accuracy"] = accuracy(model)

    resources = {"num_cpus": 1, "num_gpus": 0.0}
    config = {
        "init_args": {"address": "local", "num_cpus": workers, "include_dashboard": False},
        "client_resources": resources,
    }
    run_simulation(server, app, clients, backend_config=config)
    out.write_text(json.dumps(found))


if __name__ == "__main__":
    import plain_flower  # by its name, so that Ray's workers can import what they are sent

    plain_flower.main(Path(sys.argv[1]), *(int(word) for word in sys.argv[2:6]))
