"""Gradient checkpointing: torch's own, in segments, with nothing hidden from the meter."""

from __future__ import annotations

import copy

import pytest
import torch
from torch.nn import functional as F

import fed_asi
from fed_asi.compression.cut import segments
from fed_asi.compression.gradient_checkpointing import Checkpointed
from fed_asi.errors import ConfigError
from fed_asi.memory.meter import RECOMPUTATION, ActivationMeter
from fed_asi.methods import Vanilla
from fed_asi.training.steps import training_mode_


@pytest.fixture
def model():
    """MCUNet's shape, with its last six convolutions trained, in float64."""
    made = fed_asi.models.build("mcunet", 10, None, seed=0).double()
    names = fed_asi.tune_last_(made, 6)
    training_mode_(made)
    return made, names


def batch():
    return torch.randn(4, 3, 64, 64, dtype=torch.float64), torch.arange(4)


def step(network):
    x, y = batch()
    with ActivationMeter(network) as meter:
        loss = F.cross_entropy(network(x), y)
    loss.backward()
    return meter


@pytest.mark.few(1)
@pytest.mark.parametrize("compressed", [False, True])
def test_gradients_are_those_of_the_network_and_fewer_bytes_are_kept(model, compressed):
    network, names = model
    plain = copy.deepcopy(network)
    parts = Checkpointed.of(network, names, torch.zeros(1, 3, 64, 64, dtype=torch.float64))
    if compressed:
        for one in (plain, network):
            fed_asi.compress_(one, Vanilla())
    torch.manual_seed(0)
    kept = step(plain)
    torch.manual_seed(0)
    kept_in_parts = step(parts)
    trained = {n: p.grad for n, p in network.named_parameters() if p.requires_grad}
    assert trained
    for name, parameter in plain.named_parameters():
        if parameter.requires_grad:
            torch.testing.assert_close(trained[name], parameter.grad, rtol=1e-12, atol=1e-12)
    assert 0 < kept_in_parts.saved_bytes < kept.saved_bytes
    assert kept_in_parts.by_kind[RECOMPUTATION] == parts.recomputed_bytes > 0


def test_what_the_meter_says_is_inputs_of_the_segments_and_the_largest_one(model):
    network, names = model
    parts = Checkpointed.of(network, names, torch.zeros(1, 3, 64, 64, dtype=torch.float64))
    x, _ = batch()
    with torch.no_grad():
        links, value = [], x
        for part in parts.parts:
            links.append(value)
            value = part(value)
    meter = step(parts)
    frozen = not any(p.requires_grad for p in parts.parts[0].parameters())
    kept_links = sum(link.nbytes for link in links[1 if frozen else 0 :])
    loss = meter.by_layer["(loss)"]
    assert meter.saved_bytes == kept_links + parts.recomputed_bytes + loss


def test_the_segments_are_the_network(model):
    network, names = model
    x, _ = batch()
    network.eval()
    parts = segments(network, names, x[:1])
    value = x
    with torch.no_grad():
        for part in parts:
            value = part(value)
        torch.testing.assert_close(value, network(x), rtol=0, atol=0)
    assert len(parts) > 2
    ours = {id(p) for p in network.parameters()}
    assert all(id(p) in ours for part in parts for p in part.parameters())


def test_evaluation_keeps_nothing_and_computes_once(model):
    network, names = model
    parts = Checkpointed.of(network, names, torch.zeros(1, 3, 64, 64, dtype=torch.float64)).eval()
    x, _ = batch()
    with ActivationMeter(parts) as meter, torch.no_grad():
        found = parts(x)
    assert meter.saved_bytes == 0
    torch.testing.assert_close(found, network.eval()(x))


def test_the_second_forward_is_counted(model):
    network, names = model
    network.float()
    x = torch.randn(2, 3, 64, 64)
    parts = Checkpointed.of(network, names, x[:1])
    once, twice = fed_asi.cost(network, x), fed_asi.cost(parts, x)
    assert len(once.layers) == len(twice.layers)
    first = next(i for i, layer in enumerate(once.layers) if layer.method.trains_weight)
    assert first > 0
    again = sum(layer.forward_macs for layer in once.layers[first:])
    assert twice.step_macs == once.step_macs + again


def test_names_that_train_nothing_are_refused(model):
    network, _ = model
    with pytest.raises(ConfigError, match="no trained layer"):
        segments(network, ["nothing.of.this.name"], batch()[0][:1])
