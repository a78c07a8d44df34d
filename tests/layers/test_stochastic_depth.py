"""Stochastic depth with its own random stream: repeatable, one number per sample, global state untouched."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch import nn

from fed_asi import compress_, layers, models, tune_last_, uncompress_
from fed_asi.layers.draws import DrawState
from fed_asi.memory.meter import ActivationMeter
from fed_asi.methods import Frozen, Vanilla
from fed_asi.models.torchvision_shim import torchvision
from fed_asi.training.steps import training_mode_


def made(mode: str = "row", p: float = 0.25, seed: int = 3, micro_batch: int | None = None) -> nn.Module:
    original = torchvision.ops.StochasticDepth
    module = original(p, mode)
    layers.attach_(module, DrawState("depth", Frozen(), original, seed=seed, micro_batch=micro_batch))
    return module


def test_the_same_seed_and_call_drop_the_same_samples_and_the_global_state_rests() -> None:
    state = torch.get_rng_state()
    x = torch.ones(400, 2, 3)
    one, two = made(), made()
    first, second = one(x), one(x)
    assert torch.equal(two(x), first)
    assert not torch.equal(first, second)
    assert not torch.equal(made(seed=4)(x), first)
    assert torch.equal(pickle.loads(pickle.dumps(two))(x), second)
    assert torch.equal(copy.deepcopy(two)(x), second)
    assert torch.equal(torch.get_rng_state(), state)
    per_sample = first.flatten(1)
    assert torch.equal(per_sample.amin(1), per_sample.amax(1))
    assert sorted(set(per_sample.flatten().tolist())) == [0.0, pytest.approx(4 / 3)]
    assert 0.15 < (per_sample[:, 0] == 0).float().mean() < 0.35


def test_batches_are_dropped_whole_each_micro_batch_by_itself() -> None:
    x = torch.ones(40, 2)
    assert len(set(made("batch")(x).flatten().tolist())) == 1
    found = made("batch", p=0.5, micro_batch=4)(x).view(10, 4, 2)
    assert torch.equal(found.amin((1, 2)), found.amax((1, 2)))
    assert len(set(found.flatten().tolist())) == 2


def test_the_gradient_and_the_bytes() -> None:
    module = made()
    x = torch.randn(8, 5, dtype=torch.float64, requires_grad=True)
    with ActivationMeter(module) as meter:
        y = module(x)
    y.sum().backward()
    assert x.grad is not None
    torch.testing.assert_close(y.detach(), x.detach() * x.grad)
    kind = layers.kind_of(module)
    assert kind is not None
    assert meter.saved_bytes == 8 * 8 == kind.saved_bytes(module, Frozen(), x.shape, x.dtype)


def test_a_network_with_it_is_compressed_put_back_and_still_in_local_training() -> None:
    model = models.build("efficientnet_b0", 4, None, 32)
    tune_last_(model, 16)
    depths = [m for m in model.modules() if type(m).__name__ == "StochasticDepth"]
    assert depths
    report = compress_(model, Vanilla())
    assert any(type(m).__name__ == "CompressedStochasticDepth" for m in depths)
    assert "StochasticDepth" not in str(
        [line for line in report.lines if line.action == "left" and "before" not in line.reason]
    )
    state = torch.get_rng_state()
    model.train()(torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0)))
    assert torch.equal(torch.get_rng_state(), state)
    training_mode_(model)
    assert not any(m.training for m in depths)
    uncompress_(model)
    assert all(type(m).__name__ == "StochasticDepth" for m in depths)
