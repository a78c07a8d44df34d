"""Loss and accuracy of weights on images that no device trained on, overall and by class."""

from __future__ import annotations

import math
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fed_asi.gpus import CPU, device_of, sent

BATCH = 64  # fixed, as the batch size decides the last bits


class Inputs(Protocol):
    """What a model is fed, in slices: a tensor (N, ...), or an object that reads one slice after another."""

    def __getitem__(self, rows: slice, /) -> Tensor:
        """Return the inputs of these rows."""


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Mean cross-entropy, accuracy in 0..1, and accuracy by class (NaN for a class without images)."""

    loss: float
    accuracy: float
    class_accuracy: tuple[float, ...]
    num_examples: int

    @property
    def worst_class_accuracy(self) -> float:
        """The lowest accuracy of a class that has images."""
        return min((a for a in self.class_accuracy if not math.isnan(a)), default=math.nan)


def load_tensors_(model: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Copy named tensors into the model's parameters and buffers, which stay the same objects.

    Raises KeyError for a name that the model lacks.
    """
    own = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    with torch.no_grad():
        for name, tensor in tensors.items():
            own[name].copy_(tensor)


def evaluate(model: nn.Module, x: Inputs, y: Tensor, num_classes: int, *, workers: int = 1) -> Evaluation:
    """Return loss and accuracy of a model over all of x, whole and by class; see `judge`."""
    loss, right = judge(model, x, y, workers=workers)
    y = y.cpu()
    hits, seen = (torch.bincount(classes, minlength=num_classes).double() for classes in (y[right], y))
    per_class = tuple(float(r / s) if s > 0 else float("nan") for r, s in zip(hits, seen, strict=True))
    return Evaluation(loss, float(hits.sum() / len(y)), per_class, len(y))


def judge(model: nn.Module, x: Inputs, y: Tensor, *, workers: int = 1) -> tuple[float, Tensor]:
    """Return the mean loss of a model in eval mode, and which images it classifies correctly: (N,) bool on the CPU.

    x: (N, ...) inputs or trunk features, float32 or float16. y: (N,) classes. Needs N >= 1. Both may be on any device:
    they are sent to the model's batch by batch, and the host waits only once, for all results.
    workers: batches computed at once, each by one thread if torch has one; the bits are the same as one by one.
    """
    model.eval()
    device, starts = device_of(model), range(0, len(y), BATCH)
    labels = sent(y, device)

    def judged(start: int) -> tuple[Tensor, Tensor]:
        rows = slice(start, start + BATCH)
        return _judged(model, sent(x[rows], device), labels[rows])

    alone = device != CPU or torch.get_num_threads() > 1
    at_once = 1 if alone else min(workers, len(starts))
    with ThreadPoolExecutor(max(1, at_once), "judging", torch.set_num_threads, (1,)) as pool:
        lost, right = zip(*(pool.map(judged, starts) if at_once > 1 else map(judged, starts)), strict=True)
    loss = 0.0
    for one in torch.stack(lost).tolist():  # in the order of the batches, which decides the last bits of sums
        loss += one
    return loss / len(y), torch.cat(right).cpu()


def _judged(model: nn.Module, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Return a batch's summed loss, float64, and which images it classifies correctly."""
    with torch.inference_mode():
        inputs = x.float()
        if inputs.dim() == 4:
            inputs = inputs.contiguous(memory_format=torch.channels_last)  # twice as fast as channels first
        logits = model(inputs)
        return F.cross_entropy(logits, y, reduction="sum").double(), logits.argmax(1) == y
