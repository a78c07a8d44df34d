"""How well weights do on images no device trained on: loss and accuracy, whole and per class."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

BATCH = 64  # fixed, because the batch decides the last bits


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
    """Copy named tensors into the model's parameters and buffers; Parameter identity stays.

    Raises KeyError for a name the model lacks.
    """
    own = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    with torch.no_grad():
        for name, tensor in tensors.items():
            own[name].copy_(tensor)


def evaluate(model: nn.Module, x: Tensor, y: Tensor, num_classes: int) -> Evaluation:
    """Return loss and accuracy of a model, in eval mode and as it is, over all of x.

    x: (N, ...) inputs or trunk features, float32 or float16. y: (N,) classes. Needs N >= 1.
    """
    model.eval()
    right = torch.zeros(num_classes, dtype=torch.float64)
    seen = torch.bincount(y, minlength=num_classes).double()
    loss = 0.0
    with torch.inference_mode():
        for start in range(0, len(y), BATCH):
            labels = y[start : start + BATCH]
            inputs = x[start : start + BATCH].float()
            if inputs.dim() == 4:
                inputs = inputs.contiguous(
                    memory_format=torch.channels_last
                )  # half the time of channels first
            logits = model(inputs)
            loss += float(F.cross_entropy(logits, labels, reduction="sum").double())
            hits = labels[logits.argmax(1) == labels]
            right += torch.bincount(hits, minlength=num_classes).double()
    per_class = tuple(float(r / s) if s > 0 else float("nan") for r, s in zip(right, seen, strict=True))
    return Evaluation(loss / len(y), float(right.sum() / len(y)), per_class, len(y))
