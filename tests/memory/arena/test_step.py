"""The step that is recorded: what exists before it, what becomes of gradients, and what is refused."""

from __future__ import annotations

import copy
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fed_asi import layers
from fed_asi.compression.compress import compress_
from fed_asi.errors import ConfigError
from fed_asi.memory.arena.proof import proved
from fed_asi.memory.arena.step import RATE, record_inference, record_step
from fed_asi.methods import ASI, BiasOnly, Channels, Method, Quantized, Vanilla
from fed_asi.training.at_once import SgdWithParts, at_once
from fed_asi.training.sgd import Sgd
from tails import tail_of

SGD = partial(Sgd, momentum=0.9, weight_decay=1e-2, clip_norm=0.5)


def trained_bytes(model: nn.Module) -> int:
    return sum(p.nbytes for p in model.parameters() if p.requires_grad)


@pytest.mark.parametrize("gradients", ["held", "accumulated", "applied"])
def test_static_memory_has_its_names(gradients: str) -> None:
    tail = tail_of("tiny", ASI((1, 4, 2, 2)))
    trace = record_step(tail.model, tail.x, tail.y, gradients=gradients, optimizer=SGD)
    size = trained_bytes(tail.model)
    weights = sum(t.nbytes for t in (*tail.model.parameters(), *tail.model.buffers()))
    assert trace.bytes_of("trained") == size
    assert trace.bytes_of("trained", "frozen") == weights
    assert trace.bytes_of("gradient") == (size if gradients == "accumulated" else 0)
    assert trace.bytes_of("optimizer") == size  # momentum
    assert trace.bytes_of("factors") > 0
    assert trace.bytes_of("input") == tail.x.nbytes + tail.y.nbytes


def test_what_is_recorded_is_what_torch_does() -> None:
    tail = tail_of("tiny", Vanilla())
    before = copy.deepcopy(tail.model.state_dict())
    trace = record_step(tail.model, tail.x, tail.y, gradients="accumulated", optimizer=SGD, with_values=True)
    net = copy.deepcopy(tail.model)
    optimizer = SGD((name, p) for name, p in net.named_parameters() if p.requires_grad)
    for _ in range(2):  # the second step is the one recorded
        loss = F.cross_entropy(net(tail.x), tail.y)
        loss.backward()
        layers.commit_factors_(net)
        optimizer.step_(RATE)
    assert torch.equal(trace.found["loss"], loss)
    moved = {name: p for name, p in net.named_parameters() if p.requires_grad}
    assert moved.keys() <= trace.found.keys()
    assert all(torch.equal(trace.found[name], p) for name, p in moved.items())
    after = tail.model.state_dict()
    assert all(torch.equal(after[key], value) for key, value in before.items())
    assert all(p.grad is None for p in tail.model.parameters())


def test_applied_gradients_leave_nothing_behind() -> None:
    tail = tail_of("tiny", None)
    trace = record_step(tail.model, tail.x, tail.y, gradients="applied", with_values=True)
    assert not any(name.startswith("gradient of") for name in trace.results)
    held = record_step(tail.model, tail.x, tail.y, with_values=True)
    names = {f"gradient of {name}" for name, p in tail.model.named_parameters() if p.requires_grad}
    assert names <= held.results.keys()


@pytest.mark.few(2)
@pytest.mark.parametrize("method", [Vanilla(), Quantized(8), ASI((1, 4, 2, 2)), BiasOnly()], ids=str)
def test_weights_that_move_within_the_backward_are_recorded_as_they_move(method: Method) -> None:
    tail = tail_of("tiny", method)
    mover = partial(at_once, momentum=0.9, clip_norm=0.5)
    trace = record_step(tail.model, tail.x, tail.y, gradients="applied", mover=mover, with_values=True)
    net = copy.deepcopy(tail.model)
    moving = mover(net)
    for _ in range(2):
        with moving.moving(RATE):
            F.cross_entropy(net(tail.x), tail.y).backward()
        layers.commit_factors_(net)
    moved = {name: p for name, p in net.named_parameters() if p.requires_grad}
    assert {*moved, "loss"} == trace.found.keys()
    assert all(torch.equal(trace.found[name], p) for name, p in moved.items())
    assert trace.bytes_of("optimizer") == trained_bytes(tail.model)
    assert trace.bytes_of("gradient") == 0
    assert trace.reads == []
    assert proved(trace).equal


def test_of_a_weight_of_which_some_channels_move_the_rest_is_read_only() -> None:
    tail = tail_of("tiny", None)
    names = [name for name, module in tail.model.named_modules() if isinstance(module, nn.Linear)]
    energies = {name: torch.ones(tail.model.get_submodule(name).in_features) for name in names}
    compress_(tail.model, {name: Channels(3) for name in names}, energies=energies)
    trace = record_step(tail.model, tail.x, tail.y, gradients="applied", mover=at_once)
    assert trace.bytes_of("trained") == 4 * (10 * 3 + 10)
    weights = sum(t.nbytes for t in (*tail.model.parameters(), *tail.model.buffers()))
    assert trace.bytes_of("frozen") == weights - trace.bytes_of("trained")
    assert trace.bytes_of("trained", "frozen") == weights


@pytest.mark.parametrize("gradients", ["held", "accumulated"])
def test_so_is_its_gradient_and_its_momentum_held_in_part(gradients: str) -> None:
    tail = tail_of("tiny", None)
    names = [name for name, module in tail.model.named_modules() if isinstance(module, nn.Linear)]
    energies = {name: torch.ones(tail.model.get_submodule(name).in_features) for name in names}
    compress_(tail.model, {name: Channels(3) for name in names}, energies=energies)
    sgd = partial(SgdWithParts, momentum=0.9, clip_norm=0.5)
    trace = record_step(tail.model, tail.x, tail.y, gradients=gradients, optimizer=sgd, with_values=True)
    part = 4 * (10 * 3 + 10)
    assert trace.bytes_of("optimizer") == trace.bytes_of("trained") == part
    assert trace.bytes_of("gradient") == (part if gradients == "accumulated" else 0)
    sizes = [trace.sizes[one] for one in trace.held if one not in trace.roles]
    assert not sizes or max(sizes) <= part
    assert proved(trace).equal


@pytest.mark.parametrize("settings", [{"gradients": "held"}, {"gradients": "applied", "optimizer": SGD}])
def test_a_mover_that_could_not_move_is_refused(settings: dict[str, Any]) -> None:
    tail = tail_of("tiny", Vanilla())
    with pytest.raises(ConfigError, match='it goes with gradients="applied" and without an optimizer'):
        record_step(tail.model, tail.x, tail.y, mover=at_once, **settings)


def test_the_global_random_state_stays() -> None:
    tail = tail_of("tiny", ASI((1, 4, 2, 2)))
    state = torch.get_rng_state()
    record_step(tail.model, tail.x, tail.y)
    assert torch.equal(torch.get_rng_state(), state)


def test_an_inference_keeps_its_output() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU()).eval()
    x = torch.randn(1, 3, 4, 4)
    trace = record_inference(net, x, with_values=True)
    assert torch.equal(trace.found["output"], net(x))
    assert trace.results["output"].storage in trace.held


def test_nothing_trained_is_refused() -> None:
    net = nn.Linear(3, 2).requires_grad_(False)
    with pytest.raises(ConfigError, match="nothing of the model is trained"):
        record_step(net, torch.ones(1, 3), torch.zeros(1, dtype=torch.long))


def test_more_than_a_micro_batch_is_refused() -> None:
    tail = tail_of("tiny", Vanilla(), batch=4, micro_batch=2)
    with pytest.raises(ConfigError, match=r"micro-batches of 2 side by side.* x has 4: .*x\[:2\]"):
        record_step(tail.model, tail.x, tail.y)
    record_step(tail.model, tail.x[:2], tail.y[:2])


def test_a_model_that_fails_is_one_line_that_names_it() -> None:
    class Failing(nn.Linear):
        def forward(self, input: Tensor) -> Tensor:
            raise ValueError("first\nsecond")

    with pytest.raises(
        ConfigError, match=r"Failing fails in a step on an input of \(1, 3\): 'first'"
    ) as found:
        record_step(Failing(3, 2), torch.ones(1, 3), torch.zeros(1, dtype=torch.long))
    assert "\n" not in str(found.value)
    with pytest.raises(ConfigError, match="Failing fails"):
        record_inference(Failing(3, 2), torch.ones(1, 3))
