"""The error of every form that calibration tries, against a separate computation without shortcuts."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fed_asi import models, seeds
from fed_asi.compression.graph import analyse
from fed_asi.layers import LayerState
from fed_asi.methods import Method
from fed_asi.planning.calibration import profile
from fed_asi.planning.gradient_errors import GradientErrors
from fed_asi.planning.recording import Record, record
from fed_asi.planning.search import plan, smallest_plan_bytes
from fed_asi.planning.trials import Study

NETWORKS = [("mcunet", 96), ("mobilenet_v2", 64), ("resnet18", 64), ("resnet34", 64)]


def one_by_one(item: Record, mean: Tensor, seed: int, method: Method, micro_batch: int) -> float:
    """The trial of one form alone: its input is cut, rounded and multiplied out, and autograd gives dW of what is lost.

    Layers are linear in their input, so the distance of two gradients is the gradient of the distance.
    """
    kind, x = item.kind, item.canonical()
    ready = method.reordered(kind.canonical_order)
    state = LayerState(item.name, ready, type(item.module), seed, micro_batch, mean=mean)
    kept = ready.keep(x, state)
    if method.warm_start:
        state.factors = state.pending
        kept = ready.keep(x, state)
    centre = mean.view(1, -1, *[1] * (x.dim() - 2)) if method.centers else torch.zeros(())
    lost = (kept.restore() - (x - centre)).movedim(1, kind.channel_dim)
    weight = torch.zeros_like(item.weight()).requires_grad_()
    with torch.enable_grad():
        values = {name: torch.zeros_like(p) for name, p in item.module.named_parameters()} | {
            "weight": weight
        }
        y = torch.func.functional_call(item.module, values, (lost,))
        (dw,) = torch.autograd.grad(y, weight, item.g)
    return float(dw.double().norm())


def recorded(model: nn.Module, pixels: int, count: int) -> list[Record]:
    frozen = model.eval().requires_grad_(False)
    x = torch.randn(count, 3, pixels, pixels, generator=torch.Generator().manual_seed(3))
    graph = analyse(frozen)
    kinds = (nn.Conv2d, nn.Linear)
    names = [name for name, module in frozen.named_modules() if isinstance(module, kinds)]
    return record(frozen, graph, names, F.avg_pool2d(x, 5, 1, 2), torch.arange(count) % 10)


def check(items: list[Record], micro_batches: tuple[int, ...], every: int = 1) -> int:
    """Hold every form of every layer to 1e-4 of its error, down to 1e-7 of ||dW||, its rounding; return how many."""
    study, tried = Study(micro_batches, grid=True, centered=None), 0
    for item in items:
        mean, seed = item.mean(), seeds.derive(0, item.name)
        errors = GradientErrors(item, mean, seed)
        for size in micro_batches:
            for method, _ in list(study.forms(item, size, head=False))[::every]:
                if method.exact or item.kind.unsupported(item.module, method) is not None:
                    continue
                expected = one_by_one(item, mean, seed, method, size)
                found, norm = errors.of(method, size), float(errors.exact(method.centers).norm())
                assert found == pytest.approx(expected, rel=1e-4, abs=1e-7 * norm), (item.name, size, method)
                tried += 1
    return tried


def test_errors_are_those_of_trials_one_by_one() -> None:
    """A network with every kind of convolution and a linear head, 3 images left over at micro-batch 4."""
    items = recorded(models.build("tiny", 10, None, 16), 16, 7)
    assert check(items[-5:], (1, 4), every=3) > 100


@pytest.mark.slow
@pytest.mark.parametrize(("name", "pixels"), NETWORKS)
def test_errors_are_those_of_trials_on_every_layer(name: str, pixels: int) -> None:
    weights: dict[str, Any] = {"weights": None, "resolution": pixels}
    items = recorded(models.build(name, 10, **weights), pixels, 8)
    assert check(items, (1, 4, 8), every=5) > 15 * len(items)  # odd, so that bits and centring take turns


@pytest.mark.slow
def test_plans_are_no_worse_than_from_everything_tried_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    model, pixels = models.build("mcunet", 10, None, 64), 64
    x = F.avg_pool2d(torch.randn(16, 3, pixels, pixels, generator=torch.Generator().manual_seed(3)), 5, 1, 2)
    names = [name for name, module in model.named_modules() if isinstance(module, nn.Conv2d)][-6:]
    given: dict[str, Any] = {"trained": [*names, models.head_name(model)], "micro_batches": (1, 4, 16)}
    quick = profile(model, x, torch.arange(16) % 10, **given)
    alone = lambda self, method, size: (  # noqa: E731 - a method in one place
        0.0 if method.exact else one_by_one(self.item, self.mean, self.seed, method, size)
    )
    monkeypatch.setattr(GradientErrors, "of", alone)
    whole = profile(model, x, torch.arange(16) % 10, **given, centered=None, grid=True)
    energy = sum(layer.centered_energy + layer.bias_energy for layer in whole.layers)
    largest = plan(whole, None).planned_bytes
    for budget in np.geomspace(smallest_plan_bytes(whole), largest, 60).astype(int):
        worse = plan(whole, int(budget)).value - plan(quick, int(budget)).value
        assert worse <= 1e-6 * energy, budget


def test_forms_that_differ_in_bits_alone_are_cut_once(monkeypatch: pytest.MonkeyPatch) -> None:
    from fed_asi import tucker
    from fed_asi.methods import ASI

    cuts = []
    cut = tucker.sequential
    monkeypatch.setattr(tucker, "sequential", lambda *given: cuts.append(1) or cut(*given))
    item = recorded(models.build("tiny", 10, None, 16), 16, 4)[-3]
    errors = GradientErrors(item, item.mean(), 0)
    ranks = (1, 2, *[2] * (item.x.dim() - 2))
    for bits in (32, 8):
        for centered in (False, True):
            errors.of(ASI(ranks, bits=bits, centered=centered, warm=False), 2)
    assert len(cuts) == 2
