"""Lifetimes by hand, which tensors may take over which place, and bytes across the loss against the meter."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fed_asi.layers import commit_factors_
from fed_asi.memory.arena.lifetimes import lifetimes, saved_bytes
from fed_asi.memory.arena.offsets import lower_bound
from fed_asi.memory.arena.step import record_inference, record_step
from fed_asi.memory.meter import ActivationMeter
from fed_asi.methods import ASI
from tails import FORMS, Tail, pooled, tail_of


class Chain(nn.Module):
    """x -> a = x @ x -> b = a * 2 -> c = b @ b, of (4, 4) tensors: 64 bytes each."""

    def forward(self, x: Tensor) -> Tensor:
        b = (x @ x) * 2
        return b @ b


class Rows(nn.Module):
    """Adds to a matrix its own first row: element by element, but not in place."""

    def forward(self, x: Tensor) -> Tensor:
        a = x @ x
        return a + a[:1]


def spans(net: nn.Module, in_place: bool = True) -> list[tuple[str, int, int]]:
    trace = record_inference(net, torch.ones(4, 4))
    return [
        (one.name.rpartition(": ")[2], one.first, one.last) for one in lifetimes(trace, in_place=in_place)
    ]


def test_lifetimes_by_hand() -> None:
    assert spans(Chain(), in_place=False) == [("input", 0, 0), ("mm", 0, 1), ("mul", 1, 2), ("output", 2, 2)]


def test_an_output_takes_the_place_of_an_input_that_is_read_for_the_last_time() -> None:
    assert spans(Chain()) == [("input", 0, 0), ("mm", 0, 2), ("output", 2, 2)]


def test_what_is_read_in_another_order_keeps_its_place() -> None:
    assert spans(Rows()) == [("input", 0, 0), ("mm", 0, 2), ("output", 2, 2)]  # 1 is the slice


def test_a_view_keeps_its_storage() -> None:
    class Late(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            a = x @ x
            row = a[0]
            b = x @ x
            return b + row

    assert ("mm", 0, 3) in spans(Late(), in_place=False)


def test_batch_norm_and_relu_go_in_place_where_statistics_are_fixed() -> None:
    net = nn.Sequential(nn.Conv2d(3, 8, 1), nn.BatchNorm2d(8), nn.ReLU6()).eval()
    x = torch.ones(1, 3, 16, 16)
    both = x.nbytes + 8 * 256 * 4
    assert lower_bound(lifetimes(record_inference(net, x)), 1)[0] == both
    net.train()
    assert lower_bound(lifetimes(record_inference(net, x)), 1)[0] > 2 * 8 * 256 * 4


def both_counts(tail: Tail) -> tuple[int, int]:
    """(bytes alive across the loss by lifetimes, by the meter), of a step whose factors are warm."""
    trace = record_step(tail.model, tail.x, tail.y)
    for _ in range(2):
        x, y = tail.x.clone(), tail.y.clone()
        with ActivationMeter(tail.model) as meter:
            loss = F.cross_entropy(tail.model(x), y)
        loss.backward()
        tail.model.zero_grad()
        commit_factors_(tail.model)
    return saved_bytes(trace), meter.saved_bytes


@pytest.mark.few(4)
@pytest.mark.parametrize("form", FORMS)
def test_what_is_alive_across_the_loss_is_what_the_meter_counts(form: str) -> None:
    ours, meters = both_counts(tail_of("tiny", FORMS[form]))
    assert ours == meters > 0


def test_it_is_for_a_spatial_mean_too() -> None:
    ours, meters = both_counts(pooled())
    assert ours == meters > 0


class ForNothing(torch.autograd.Function):
    """Saves a tensor that its backward never looks at."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x * 2)
        return x * 1

    @staticmethod
    def backward(_ctx: Any, g: Tensor) -> Tensor:  # type: ignore[override]
        return g * 1


def test_the_two_can_disagree() -> None:
    """Autograd keeps what nothing will read, so the meter counts it; by lifetimes a device need not."""

    class Net(nn.Linear):
        def forward(self, input: Tensor) -> Tensor:
            return ForNothing.apply(super().forward(input))

    ours, meters = both_counts(
        Tail(nn.Identity(), Net(8, 10), torch.ones(2, 8), torch.ones(2, 8), torch.zeros(2).long())
    )
    assert meters - ours == 2 * 10 * 4


@pytest.mark.slow
@pytest.mark.parametrize("micro_batch", [1, 4])
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("network", ["mcunet", "mobilenet_v2", "resnet18", "resnet34"])
def test_it_is_on_four_networks(network: str, form: str, micro_batch: int) -> None:
    ours, meters = both_counts(tail_of(network, FORMS[form], batch=micro_batch, size=64, layers=4))
    assert abs(ours - meters) <= 0.01 * 1024
    assert ours > 0


def test_micro_batches_one_after_another_do_not_add_up() -> None:
    one = saved_bytes(record_step(*step_of(tail_of("tiny", ASI((1, 4, 2, 2), warm=False), batch=1))))
    two = saved_bytes(record_step(*step_of(tail_of("tiny", ASI((1, 4, 2, 2), warm=False), batch=2))))
    assert one < two


def step_of(tail: Tail) -> tuple[nn.Module, Tensor, Tensor]:
    return tail.model, tail.x, tail.y
