"""The work in pfl, as in its own image benchmark: a simulated backend over a federated data set of tensors.

python with_pfl.py WORK OUT, in an environment with `pfl[pytorch]`; with two processes:
python -m torch.distributed.run --standalone --nproc-per-node 2 with_pfl.py WORK OUT
"""

from __future__ import annotations

import itertools
import sys
from importlib.metadata import version
from pathlib import Path
from types import MethodType
from typing import Any

import numpy as np
import torch
from pfl.aggregate.simulate import SimulatedBackend
from pfl.aggregate.weighting import WeightByDatapoints
from pfl.algorithm.base import NNAlgorithmParams
from pfl.algorithm.federated_averaging import FederatedAveraging
from pfl.callback.base import TrainingProcessCallback
from pfl.callback.central_evaluation import CentralEvaluationCallback
from pfl.data.dataset import Dataset
from pfl.data.federated_dataset import FederatedDataset
from pfl.hyperparam import NNEvalHyperParams, NNTrainHyperParams
from pfl.internal.ops.pytorch_ops import distributed
from pfl.metrics import Metrics, Weighted
from pfl.model.pytorch import PyTorchModel
from same_work import JUDGED_AT_ONCE, Clock, Work, one_thread
from torch import Tensor, nn
from torch.nn import functional as F


def loss(self: nn.Module, x: Tensor, y: Tensor, eval: bool = False) -> Tensor:
    self.train(not eval)
    return F.cross_entropy(self(x), y)


@torch.no_grad()
def metrics(self: nn.Module, x: Tensor, y: Tensor, eval: bool = True) -> dict[str, Any]:
    self.train(not eval)
    right = (self(x).argmax(1) == y).sum().item()
    return {"accuracy": Weighted(right, len(x))}


class EachRound(TrainingProcessCallback):
    """Records when each round ended. It runs after the evaluation, whose metrics it reads."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock

    def on_train_begin(self, *, model: Any) -> Metrics:  # noqa: ARG002 - pfl says it
        """Start the clock."""
        self.clock.begin()
        return Metrics()

    def after_central_iteration(
        self,
        aggregate_metrics: Metrics,
        model: Any,  # noqa: ARG002
        *,
        central_iteration: int,  # noqa: ARG002
    ) -> tuple[bool, Metrics]:
        """Record the time, and do not stop."""
        self.clock.end(float(aggregate_metrics["Central val | accuracy"].overall_value))
        return False, Metrics()


def users(work: Work) -> FederatedDataset:
    """Return the clients' data; a user is a client in one round, because its order of images differs by round."""
    asked = [(round, client) for round, cohort in enumerate(work.settings.cohorts) for client in cohort]
    ahead = itertools.cycle(range(len(asked)))

    def data_of(user: int) -> Dataset:
        rows = work.ordered(*asked[user])
        return Dataset([work.images[rows], work.labels[rows]], user_id=str(user))

    sizes = {user: len(work.shard(client)) for user, (_, client) in enumerate(asked)}
    return FederatedDataset(data_of, lambda: next(ahead), user_id_to_weight=sizes)


def main(folder: Path, out: Path) -> None:
    one_thread()
    torch.manual_seed(0)
    np.random.seed(0)
    work, clock = Work.open(folder), Clock()
    settings = work.settings
    net = work.model()
    net.loss, net.metrics = MethodType(loss, net), MethodType(metrics, net)
    trained = [parameter for parameter in net.parameters() if parameter.requires_grad]
    model = PyTorchModel(net, torch.optim.SGD, torch.optim.SGD(trained, lr=1.0))
    data = users(work)
    backend = SimulatedBackend(training_data=data, val_data=data, postprocessors=[WeightByDatapoints()])
    evaluation = NNEvalHyperParams(local_batch_size=JUDGED_AT_ONCE)
    FederatedAveraging().run(
        algorithm_params=NNAlgorithmParams(
            central_num_iterations=settings.rounds,
            evaluation_frequency=settings.rounds + 1,  # clients evaluate too; in round 1 always
            train_cohort_size=len(settings.cohorts[0]),
            val_cohort_size=0,
        ),
        backend=backend,
        model=model,
        model_train_params=NNTrainHyperParams(
            local_learning_rate=settings.lr, local_num_epochs=settings.epochs, local_batch_size=settings.batch
        ),
        model_eval_params=evaluation,
        callbacks=[
            CentralEvaluationCallback(Dataset(list(work.test)), model_eval_params=evaluation),
            EachRound(clock),
        ],
    )
    if distributed.global_rank == 0:
        clock.write(out, net.state_dict(), pfl=version("pfl"))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
