"""What a recorder records: every operation, with the storages it reads, creates and writes, and its layer."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from fed_asi.memory.arena.recorder import Recorder
from fed_asi.memory.arena.trace import Trace, View


def recorded(model: nn.Module, x: Tensor, backward: bool = False) -> Trace:
    recorder = Recorder(model)
    for name, parameter in model.named_parameters():
        recorder.declare(parameter, "trained", name)
    recorder.declare(x, "input", "input")
    with recorder:
        out = model(x)
        recorder.forward_is_over(out)
        if backward:
            out.sum().backward()
    return recorder.trace


def kinds(trace: Trace) -> list[str]:
    return [op.name.rpartition(": ")[2] for op in trace.ops]


class Looks(nn.Module):
    """Views, a write through one of them, and an out= argument."""

    def forward(self, x: Tensor) -> Tensor:
        y = x + 1
        y.view(-1)[:4].mul_(2)
        z = torch.empty(2, 2)
        return torch.mm(y, y, out=z).t()


def test_views_share_a_storage_and_writes_are_known() -> None:
    trace = recorded(Looks(), torch.ones(2, 2))
    assert kinds(trace) == ["add", "view", "slice", "mul_", "empty", "mm", "t"]
    y, z = trace.ops[0].outputs[0].storage, trace.ops[4].outputs[0].storage
    assert [op.writes for op in trace.ops] == [(), (), (), (y,), (), (z,), ()]
    assert [op.makes for op in trace.ops] == [(y,), (), (), (), (z,), (), ()]
    assert trace.ops[2].outputs == (View(y, torch.float32, (4,), (1,), 0),)
    assert trace.ops[6].outputs[0].strides == (1, 2)
    assert trace.sizes[y] == trace.sizes[z] == 16
    assert trace.reads == []


def test_the_backward_is_seen_and_named_by_the_layer_it_is_of() -> None:
    net = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
    trace = recorded(net, torch.ones(5, 4), backward=True)
    forward = [op.name for op in trace.ops[: trace.forward] if "addmm" in op.name or "relu" in op.name]
    assert forward == ["0: addmm", "1: relu", "2: addmm"]
    backward = [op.name for op in trace.ops[trace.forward :]]
    assert [name for name in backward if "mm" in name] == ["2: mm", "2: mm", "0: mm"]
    assert "1: threshold_backward" in backward
    assert "2.weight: detach" in backward


class Doubled(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x.sign())
        return x * 2

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Tensor:  # type: ignore[override]
        return g.mul(2) + 0 * ctx.saved_tensors[0]


def test_a_function_of_ones_own_is_seen_through_both_ways() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.ones(3))

        def forward(self, x: Tensor) -> Tensor:
            return Doubled.apply(x * self.scale)

    trace = recorded(Net(), torch.ones(3), backward=True)
    assert kinds(trace)[:3] == ["mul", "sign", "mul"]
    sign = trace.ops[1].outputs[0].storage
    assert any(view.storage == sign for op in trace.ops[trace.forward :] for view in op.read)


def test_what_is_freed_keeps_its_own_number() -> None:
    class Many(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            for _ in range(50):
                x = x + 1  # the one before is freed, and torch may use its memory again
            return x

    trace = recorded(Many(), torch.ones(100))
    assert len({op.outputs[0].storage for op in trace.ops}) == 50


def test_a_number_taken_out_of_the_step_is_known_by_its_layer() -> None:
    class Deciding(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x * 2 if x.sum() > 0 else x

    trace = recorded(nn.Sequential(nn.ReLU(), Deciding()), torch.ones(3))
    assert trace.reads == ["1"]
    scale = torch.tensor(3.0)  # a number of before the step decides nothing by the data

    class Scaled(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x * float(scale)

    assert recorded(Scaled(), torch.ones(3)).reads == []


def test_recording_changes_nothing() -> None:
    net, x = nn.Sequential(nn.Linear(4, 3), nn.ReLU()), torch.linspace(-1, 1, 8).view(2, 4)
    net(x).sum().backward()
    plain = [p.grad.clone() for p in net.parameters()]
    net.zero_grad()
    recorded(net, x, backward=True)
    assert all(torch.equal(a, p.grad) for a, p in zip(plain, net.parameters(), strict=True))
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in net.modules())
