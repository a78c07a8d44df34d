"""What training needs besides activations, against sizes worked out by hand."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from fed_asi import models
from fed_asi.compression.compress import compress_
from fed_asi.compression.tune import tune_last_
from fed_asi.memory.training import training_memory
from fed_asi.methods import ASI, Quantized, Vanilla


def linear(accumulate: bool, momentum: bool) -> object:
    model = nn.Linear(100, 10, bias=False)
    x, y = torch.randn(8, 100), torch.zeros(8, dtype=torch.long)
    return training_memory(model, x, y, accumulate=accumulate, momentum=momentum)


@pytest.mark.parametrize("accumulate", [True, False])
@pytest.mark.parametrize("momentum", [True, False])
def test_a_linear_layer_by_hand(accumulate: bool, momentum: bool) -> None:
    found = linear(accumulate, momentum)
    assert found.weight_bytes == 4000
    assert found.accumulator_bytes == 4000 * accumulate
    assert found.optimizer_bytes == 4000 * momentum
    assert found.saved_bytes == 8 * 100 * 4 + 8 * 10 * 4 + 8 * 8 + 4
    # The peak is at the end: dW, dlogits, the loss and its gradient, when the log-probabilities are gone.
    assert abs(found.step_transient_bytes - (4000 + 320 + 4 + 4 - 320)) <= 8
    assert found.total_bytes == found.static_bytes + found.saved_bytes + found.step_transient_bytes
    assert "accumulator_bytes" in str(found)


def test_trunk_and_tail_of_a_network_under_their_own_names() -> None:
    model = models.build("tiny", 5)
    trunk = nn.Sequential(model.first_conv, *model.blocks[:3]).eval().requires_grad_(False)
    tail = nn.Sequential(*model.blocks[3:], model.pool, model.flatten, model.classifier).train()
    x, y = torch.randn(4, 3, 32, 32), torch.arange(4)
    plain = training_memory(tail, x, y, trunk=trunk)
    assert plain.trunk_weight_bytes == sum(t.nbytes for t in (*trunk.parameters(), *trunk.buffers()))
    assert plain.trunk_transient_bytes >= 4 * 8 * 16 * 16 * 4
    tail_before = [(name, type(module)) for name, module in tail.named_modules()]
    assert [(name, type(module)) for name, module in tail.named_modules()] == tail_before
    assert all(p.grad is None for p in tail.parameters())


def test_a_compressed_tail_holds_less_at_its_peak() -> None:
    model = models.build("tiny", 5)
    x, y = torch.randn(16, 3, 64, 64), torch.arange(16) % 5
    tune_last_(model, 4)
    whole = training_memory(model.train(), x, y)
    compress_(model, {"classifier": Vanilla(), **{n: ASI((2, 2, 2, 2)) for n in convolutions(model)}})
    ours = training_memory(model, x, y)
    assert ours.saved_bytes < whole.saved_bytes
    assert ours.total_bytes < whole.total_bytes
    compress_(model, {n: Quantized(8, centered=True) for n in convolutions(model)}, means=zeros(model))
    assert training_memory(model, x, y).constant_bytes == 4 * sum(
        model.get_submodule(n).in_channels for n in convolutions(model)
    )


def convolutions(model: nn.Module) -> list[str]:
    return [n for n, m in model.named_modules() if isinstance(m, nn.Conv2d)][-4:]


def zeros(model: nn.Module) -> dict[str, list[float]]:
    return {n: [0.0] * model.get_submodule(n).in_channels for n in convolutions(model)}
