"""No simulator: the jobs one after another in plain PyTorch, without any simulator's overhead.

python with_torch.py WORK OUT
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

import torch
from same_work import Clock, Work, judge, one_thread, train_
from torch import Tensor


def main(folder: Path, out: Path) -> None:
    one_thread()
    work, clock = Work.open(folder), Clock()
    model = work.model()
    now = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    clock.begin()
    for round, cohort in enumerate(work.settings.cohorts):
        total = {name: torch.zeros_like(tensor) for name, tensor in now.items()}
        images = sum(len(work.shard(client)) for client in cohort)
        for client in cohort:
            model.load_state_dict(now)
            train_(model, work.batches(round, client), work.settings.lr)
            add_(total, model.state_dict(), len(work.shard(client)) / images)
        now = total
        model.load_state_dict(now)
        clock.end(judge(model, work.test))
    clock.write(out, now)


def add_(total: Mapping[str, Tensor], state: Mapping[str, Tensor], share: float) -> None:
    for name, tensor in state.items():
        if tensor.is_floating_point():
            total[name].add_(tensor, alpha=share)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
