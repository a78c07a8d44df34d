"""Whole updates combined by these strategies and by Flower's own, over several rounds."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # Flower's own imports warn
    from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
    from flwr.serverapp import strategy as flower
    from flwr.supercore.task_identity import TaskIdentity

from fed_asi.strategies import Round, Strategy
from fed_asi.strategies.fedadagrad import FedAdagrad
from fed_asi.strategies.fedadam import FedAdam
from fed_asi.strategies.fedavg import FedAvg
from fed_asi.strategies.fedavgm import FedAvgM
from fed_asi.strategies.fedprox import FedProx
from fed_asi.strategies.fedyogi import FedYogi
from fed_asi.strategies.krum import Krum
from fed_asi.strategies.median import Median
from fed_asi.strategies.norm_bound import NormBound
from fed_asi.strategies.trimmed_mean import TrimmedMean
from rounds_drawn import gaussian, whole

PAIRS: dict[str, tuple[Strategy, Callable[[], Any]]] = {
    "fedavg": (FedAvg(), flower.FedAvg),
    "fedprox": (FedProx(), lambda: flower.FedProx(proximal_mu=0.01)),
    "norm-bound": (
        NormBound(max_norm=0.2),
        lambda: flower.DifferentialPrivacyServerSideFixedClipping(flower.FedAvg(), 0.0, 0.2, 4),
    ),
    "fedavgm": (
        FedAvgM(server_lr=0.5),
        lambda: flower.FedAvgM(server_learning_rate=0.5, server_momentum=0.9),
    ),
    "fedadagrad": (FedAdagrad(), flower.FedAdagrad),
    "fedadagrad, other": (
        FedAdagrad(server_lr=0.3, tau=1e-2),
        lambda: flower.FedAdagrad(eta=0.3, tau=1e-2),
    ),
    "fedadam": (FedAdam(bias_correction=True), flower.FedAdam),
    "fedadam, other": (
        FedAdam(server_lr=0.03, beta1=0.5, beta2=0.7, tau=1e-2, bias_correction=True),
        lambda: flower.FedAdam(eta=0.03, beta_1=0.5, beta_2=0.7, tau=1e-2),
    ),
    "fedyogi": (FedYogi(), flower.FedYogi),
    "median": (Median(), flower.FedMedian),
    "trimmed-mean": (TrimmedMean(0.25), lambda: flower.FedTrimmedAvg(beta=0.25)),
    "krum": (Krum(hostile=1), lambda: flower.Krum(num_malicious_nodes=1)),
    "multi-krum": (
        Krum(hostile=1, keep=3),
        lambda: flower.MultiKrum(num_malicious_nodes=1, num_nodes_to_select=3),
    ),
}


class Fixed:
    """A grid of no nodes, all that Flower's strategies ask for to learn the weights of a round."""

    def get_node_ids(self) -> list[int]:
        return [1, 2, 3, 4]


def theirs(strategy: Any, given: Round) -> dict[str, Tensor]:
    """Return what Flower's strategy makes of a round of whole updates."""
    TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = 1, 1, 1
    strategy.configure_train(given.round, record(given.tensors), ConfigRecord(), Fixed())
    replies = []
    for update in given.updates:
        metrics = MetricRecord({"num-examples": update.num_examples})
        sent = Message(RecordDict(), dst_node_id=update.partition_id, message_type="train")
        replies.append(
            Message(RecordDict({"arrays": record(update.tensors), "metrics": metrics}), reply_to=sent)
        )
    arrays, _ = strategy.aggregate_train(given.round, replies)
    return {name: torch.from_numpy(np.array(array.numpy())) for name, array in arrays.items()}


def record(tensors: Any) -> ArrayRecord:
    return ArrayRecord({name: Array(tensor.numpy()) for name, tensor in tensors.items()})


@pytest.mark.parametrize("which", PAIRS)
@pytest.mark.filterwarnings("ignore")
def test_whole_updates_come_to_what_flower_makes_of_them(which: str) -> None:
    logging.getLogger("flwr").setLevel(logging.ERROR)
    ours, make = PAIRS[which]
    their, tensors, state = make(), gaussian(0), {}
    for round in range(1, 5):
        drawn = whole([(3 * round + k) % 11 for k in range(4 + round % 2 + 1)], tensors, round)
        expected = theirs(their, drawn)
        found = ours.combine(drawn, state)
        for name, tensor in found.tensors.items():
            apart = (tensor.double() - expected[name].double()).abs().max()
            assert apart <= 2e-6, f"{name} in round {round}"
            assert (tensor - drawn.tensors[name]).abs().max() > 1e-4  # something moved
        tensors, state = found.tensors, found.state
