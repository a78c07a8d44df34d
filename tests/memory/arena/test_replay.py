"""The layout proved: a step repeated in its arena gives torch's loss, gradients and weights; a wrong one does not."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import pytest
import torch
from torch import Tensor, nn

from fed_asi.errors import ConfigError, UnsupportedLayerError
from fed_asi.memory.arena.planned import Arena, laid_out
from fed_asi.memory.arena.proof import offsets_of, proved
from fed_asi.memory.arena.replay import replay
from fed_asi.memory.arena.step import record_inference, record_step
from fed_asi.memory.arena.trace import Trace
from fed_asi.methods import ASI, Quantized, Vanilla
from fed_asi.training.sgd import Sgd
from tails import FORMS, tail_of

SGD = partial(Sgd, momentum=0.9, weight_decay=1e-2, clip_norm=0.5)


@pytest.mark.few(4)
@pytest.mark.parametrize("form", FORMS)
def test_loss_and_gradients_are_torchs_to_the_bit(form: str) -> None:
    tail = tail_of("tiny", FORMS[form])
    found = proved(record_step(tail.model, tail.x, tail.y, with_values=True))
    trained = [name for name, p in tail.model.named_parameters() if p.requires_grad]
    assert found.differences.keys() == {"loss", *(f"gradient of {name}" for name in trained)}
    assert found.equal, found.differences


@pytest.mark.few(3)
@pytest.mark.parametrize("gradients", ["held", "accumulated", "applied"])
@pytest.mark.parametrize("method", [None, Quantized(8), ASI((1, 4, 2, 2))], ids=str)
def test_the_optimizers_step_is_too(gradients: str, method: object) -> None:
    tail = tail_of("tiny", method)
    trace = record_step(tail.model, tail.x, tail.y, gradients=gradients, optimizer=SGD, with_values=True)
    found = proved(trace)
    assert {name for name, p in tail.model.named_parameters() if p.requires_grad} <= found.differences.keys()
    assert found.equal, found.differences


def test_an_inference_is_too() -> None:
    tail = tail_of("mcunet", None, batch=1, size=64, layers=4)
    found = proved(record_inference(tail.trunk, tail.images, with_values=True))
    assert found.differences == {"output": 0.0}
    assert found.arena.bytes == 160 * 1024


@pytest.mark.slow
@pytest.mark.parametrize("micro_batch", [1, 4])
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("network", ["mcunet", "mobilenet_v2", "resnet18", "resnet34"])
def test_it_is_on_four_networks(network: str, form: str, micro_batch: int) -> None:
    tail = tail_of(network, FORMS[form], batch=micro_batch, size=64, layers=4)
    assert proved(record_step(tail.model, tail.x, tail.y, with_values=True)).equal


def moved(found: Arena, number: int, offset: int) -> Arena:
    """The layout with one tensor elsewhere."""
    tensors = list(found.tensors)
    tensors[number] = replace(tensors[number], offset=offset)
    return replace(found, tensors=tuple(tensors))


def differs(trace: Trace, found: Arena) -> bool:
    try:
        results = replay(trace, offsets_of(found), found.bytes)
    except RuntimeError as error:  # torch's own look at what an operation reads and writes
        return "memory location" in str(error)
    return any(not torch.equal(results[name], value) for name, value in trace.found.items())


def test_a_layout_with_any_two_live_tensors_on_each_other_gives_other_results() -> None:
    tail = tail_of("tiny", Vanilla(), layers=1)
    trace = record_step(tail.model, tail.x, tail.y, with_values=True)
    found = laid_out(trace)
    assert not differs(trace, found)
    tried = caught = 0
    for i, one in enumerate(found.tensors):
        for other in found.tensors[i + 1 :]:
            # The later one is made while the earlier still has an operation to come that reads it.
            if one.first < other.first < one.last and min(one.bytes, other.bytes) >= 64:
                tried += 1
                fits = one.offset + max(one.bytes, other.bytes) <= found.bytes
                caught += fits and differs(trace, moved(found, found.tensors.index(other), one.offset))
    assert caught >= 0.8 * tried > 5  # a wrong value may be one that a ReLU cuts off anyway


def test_a_buffer_too_small_is_an_error() -> None:
    tail = tail_of("tiny", None, layers=1)
    trace = record_step(tail.model, tail.x, tail.y, with_values=True)
    found = laid_out(trace)
    with pytest.raises(ConfigError, match="the layout puts a tensor's end at byte"):
        replay(trace, offsets_of(found), found.bytes - 16)


def test_an_output_in_its_inputs_place_is_written_there_by_the_operation_itself() -> None:
    """So a product in place of its input, which would read what it has overwritten, does not go unseen."""

    class Product(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return (x + 0) @ x

    trace = record_inference(Product(), torch.randn(4, 4), with_values=True)
    found = laid_out(trace)
    (at,) = (one.offset for one in found.tensors if "input" in one.name)
    last = next(i for i, one in enumerate(found.tensors) if one.name == "output")
    assert differs(trace, moved(found, last, at))


def test_a_trace_without_values_cannot_be_run_again() -> None:
    tail = tail_of("tiny", None)
    trace = record_step(tail.model, tail.x, tail.y)
    with pytest.raises(ConfigError, match="traced without its values"):
        replay(trace, {}, 0)


class Attention(nn.Module):
    def __init__(self, dropout: float) -> None:
        super().__init__()
        self.mix, self.head = nn.MultiheadAttention(4, 2, dropout, batch_first=True), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.mix(x, x, x, need_weights=False)[0].mean(1))


def test_attention_is_run_again_where_its_dropout_is_off() -> None:
    x, y = torch.randn(2, 5, 4, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 1])
    assert proved(record_step(Attention(0.0), x, y, with_values=True)).equal
    with pytest.raises(UnsupportedLayerError, match="draws random numbers"):
        proved(record_step(Attention(0.5), x, y, with_values=True))


def test_random_numbers_cannot_be_drawn_again() -> None:
    net = nn.Sequential(nn.Linear(4, 3), nn.Dropout(0.5)).train()
    trace = record_step(net, torch.ones(2, 4), torch.zeros(2, dtype=torch.long), with_values=True)
    with pytest.raises(UnsupportedLayerError, match="draws random numbers"):
        proved(trace)
