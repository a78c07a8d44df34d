"""Weights that move within the backward pass, against a whole step of plain PyTorch in float64."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from fed_asi.compression.compress import compress_
from fed_asi.errors import OverBudgetError, UnsupportedLayerError
from fed_asi.layers.base import slices_of
from fed_asi.methods import ASI, BiasOnly, Channels, Method, Quantized, Vanilla
from fed_asi.training.at_once import AtOnce
from fed_asi.training.sgd import Sgd
from fed_asi.training.steps import Stepper, training_mode_


class Net(nn.Module):
    """A 1x1, a depthwise and a dense convolution, fused, with a residual; a norm by itself; a classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.expand, self.norm1 = nn.Conv2d(4, 40, 1, bias=False), nn.BatchNorm2d(40)
        self.depth, self.norm2 = nn.Conv2d(40, 40, 3, padding=1, groups=40), nn.BatchNorm2d(40)
        self.dense, self.act = nn.Conv2d(40, 4, 3, padding=1), nn.ReLU6()
        self.alone, self.head = nn.BatchNorm2d(4), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        y = self.act(self.norm2(self.depth(self.act(self.norm1(self.expand(x))))))
        return self.head(self.alone(x + self.dense(y)).mean([2, 3]))


def network(net: nn.Module | None = None) -> nn.Module:
    torch.manual_seed(0)
    net = (net or Net()).double()
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2.0)
            module.weight.data.normal_()
    return net.eval()


def batch(count: int = 6) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(count, 4, 5, 5, generator=generator).double(), torch.arange(count) % 3


def stepper(net: nn.Module, method: Method, micro_batch: int = 6, **options: object) -> Stepper:
    tail = copy.deepcopy(net).train()
    sgd = {key: options.pop(key) for key in ("momentum", "weight_decay", "clip_norm") if key in options}
    compress_(tail, method, seed=0, micro_batch=micro_batch if options.get("side_by_side") else None)
    training_mode_(tail)
    optimizer = Sgd(tail.named_parameters(), **sgd)
    options = {"budget_bytes": None, "side_by_side": False, **options}
    return Stepper(tail, optimizer, micro_batch=micro_batch, **options)


class InFloat64(nn.Module):
    """The stepper feeds float32; the oracle is in float64."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x.double())


def same(left: nn.Module, right: nn.Module) -> None:
    for (name, ours), theirs in zip(left.named_parameters(), right.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-12, msg=name)


METHODS = [Vanilla(), Quantized(8), ASI((2, 3, 3, 3), warm=False)]


@pytest.mark.few(3)
@pytest.mark.parametrize("method", METHODS, ids=str)
@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("weight_decay", [0.0, 0.01])
def test_without_clipping_it_is_a_step_of_all_layers(
    method: Method, momentum: float, weight_decay: float
) -> None:
    sgd = {"momentum": momentum, "weight_decay": weight_decay}
    net = network(InFloat64(Net()))
    at_once, step = (stepper(net, method, update=update, **sgd) for update in ("layer", "step"))
    x, y = batch()
    for _ in range(3):
        assert float(at_once.step_(x, y, 0.1)) == pytest.approx(float(step.step_(x, y, 0.1)), rel=1e-6)
        same(at_once.tail, step.tail)
    assert at_once.optimizer.state_bytes == step.optimizer.state_bytes
    assert all(p.grad is None for p in at_once.tail.parameters())


def test_each_micro_batch_moves_the_weights() -> None:
    net = network(InFloat64(Net()))
    at_once, after = (stepper(net, Vanilla(), 4, update=update) for update in ("layer", "micro-batch"))
    for _ in range(2):
        at_once.step_(*batch(), 0.1)
        after.step_(*batch(), 0.1)
    same(at_once.tail, after.tail)


@pytest.mark.parametrize("update", ["layer", "micro-batch"])
def test_gradients_at_the_batch_s_start_are_the_step_s(update: str) -> None:
    """The first step is the device's own, and counts its bytes; the others equal one step of the whole batch."""
    net = network(InFloat64(Net()))
    ours, exact, step = (
        stepper(net, Vanilla(), 2, side_by_side=True, **options)
        for options in ({"update": update, "gradients_at": "batch"}, {"update": update}, {"update": "step"})
    )
    for one in (ours, exact):
        one.step_(*batch(), 0.1)
    same(ours.tail, exact.tail)
    bytes_of_a_device = (ours.largest.saved_bytes, ours.accumulator_bytes)
    assert bytes_of_a_device == (exact.largest.saved_bytes, exact.accumulator_bytes)
    step.tail.load_state_dict(ours.tail.state_dict())
    for one in (ours, step, exact):
        one.step_(*batch(), 0.1)
    same(ours.tail, step.tail)
    with pytest.raises(AssertionError):
        same(ours.tail, exact.tail)
    assert (ours.largest.saved_bytes, ours.accumulator_bytes) == bytes_of_a_device


@pytest.mark.parametrize("update", ["layer", "micro-batch"])
@pytest.mark.parametrize("gradients_at", ["micro-batch", "batch", 2])
def test_each_image_of_an_epochs_small_last_batch_moves_the_weights_no_further_than_others(
    update: str, gradients_at: str | int
) -> None:
    """A step of two images alone, whose rate is theirs of six, is the oracle."""
    net = network(InFloat64(Net()))
    options = {"side_by_side": True, "update": update, "gradients_at": gradients_at, "weight_decay": 0.01}
    ours, alone = (stepper(net, Vanilla(), 2, batch_size=size, **options) for size in (6, None))
    x, y = batch()
    for one in (ours, alone):
        one.step_(x, y, 0.1)
    same(ours.tail, alone.tail)
    loss = ours.step_(x[:2], y[:2], 0.1)
    assert float(loss) == pytest.approx(float(alone.step_(x[:2], y[:2], 0.1 * 2 / 6)))
    same(ours.tail, alone.tail)


@pytest.mark.parametrize("images", [1, 3, 4])
def test_gradients_at_the_start_of_some_images_are_those_of_that_many(images: int) -> None:
    """From the second step on, as if micro-batches were that large; micro-batches larger than that move as they do."""
    net = network(InFloat64(Net()))
    ours = stepper(net, Vanilla(), 2, side_by_side=True, update="layer", gradients_at=images)
    theirs = stepper(net, Vanilla(), max(images, 2), update="layer")
    ours.step_(*batch(), 0.1)
    theirs.tail.load_state_dict(ours.tail.state_dict())
    for one in (ours, theirs):
        one.step_(*batch(), 0.1)
    same(ours.tail, theirs.tail)


def by_layer(net: nn.Module, groups: list[list[nn.Parameter]], limit: float, lr: float) -> None:
    for group in groups:
        norm = torch.stack([p.grad.square().sum() for p in group]).sum().sqrt()
        for p in group:
            p.data -= lr * min(1.0, limit / (float(norm) + 1e-6)) * p.grad
    net.zero_grad()


@pytest.mark.parametrize("method", METHODS, ids=str)
def test_gradients_are_clipped_by_layer(method: Method) -> None:
    """A layer's weight and bias, with its batch norm's where that is computed with it."""
    ours = stepper(network(InFloat64(Net())), method, update="layer", clip_norm=0.05)
    plain = stepper(network(InFloat64(Net())), method, update="step")
    net = plain.tail.net
    layers = [[net.expand, net.norm1], [net.depth, net.norm2], [net.dense], [net.alone], [net.head]]
    for _ in range(2):
        plain.accumulate(*batch(), side_by_side=False)
        groups = [[p for layer in group for p in layer.parameters()] for group in layers]
        by_layer(net, groups, 0.05, 0.1)
        ours.step_(*batch(), 0.1)
        same(ours.tail, plain.tail)


@pytest.mark.parametrize("method", [*METHODS, BiasOnly()], ids=str)
def test_each_micro_batch_is_clipped_by_layer_side_by_side(method: Method) -> None:
    """The last micro-batch is smaller. The oracle computes, clips and adds up one after another."""
    net = network(InFloat64(Net()))
    net.net.depth.requires_grad_(False)
    net.net.norm2.requires_grad_(False)
    options = {"side_by_side": True, "update": "layer", "gradients_at": "batch", "clip_norm": 0.05}
    ours, plain = stepper(net, method, 2, **options), stepper(net, method, 2)
    x, y = batch(5)
    ours.step_(x, y, 0.1)  # as the device does it
    plain.tail.load_state_dict(ours.tail.state_dict())
    inner = plain.tail.net
    layers = [
        [inner.expand, inner.norm1],
        [inner.depth, inner.norm2],
        [inner.dense],
        [inner.alone],
        [inner.head],
    ]
    wanted = {name: p.detach().clone() for name, p in plain.tail.named_parameters()}
    for rows in (slice(0, 2), slice(2, 4), slice(4, 5)):
        plain.accumulate(x[rows], y[rows], side_by_side=False)
        groups = [[p for layer in group for p in layer.parameters()] for group in layers]
        before = copy.deepcopy(plain.tail.state_dict())
        trained = [[p for p in group if p.grad is not None] for group in groups]
        trained = [group for group in trained if group]
        by_layer(plain.tail, trained, 0.05, 0.1 * len(y[rows]) / 5)
        for name, p in plain.tail.named_parameters():
            wanted[name] += p.detach() - before[name]
        plain.tail.load_state_dict(before)
    ours.step_(x, y, 0.1)
    for name, p in ours.tail.named_parameters():
        torch.testing.assert_close(p.detach(), wanted[name], rtol=1e-10, atol=1e-12, msg=name)
    assert ours.optimizer.clip_norm == 0.05


def test_what_cannot_be_clipped_side_by_side_is_named() -> None:
    options = {"side_by_side": True, "update": "layer", "gradients_at": "batch", "clip_norm": 0.05}
    with pytest.raises(
        UnsupportedLayerError, match=r"^tied\.weight: no compressed layer computes its gradient alone"
    ):
        stepper(network(Twice()), Vanilla(), 2, **options)


def test_the_last_biases_and_nothing_of_the_weights() -> None:
    net = network(InFloat64(Net()))
    at_once, step = (stepper(net, BiasOnly(), update=update) for update in ("layer", "step"))
    for one in (at_once, step):
        one.step_(*batch(), 0.1)
    same(at_once.tail, step.tail)


def test_a_simulation_makes_parts_at_once_and_moves_weights_as_a_device_does_in_blocks() -> None:
    before, moved = network(Wide(1)), []
    for in_blocks in (True, False):
        net = copy.deepcopy(before)
        compress_(net, {"conv": Channels(8), "head": Vanilla()}, energies={"conv": torch.arange(128.0)})
        mover = AtOnce(net, Sgd(net.named_parameters(), slices=slices_of(net)), in_blocks=in_blocks)
        with mover.moving(0.1):
            F.cross_entropy(net(torch.ones(1, 128, 2, 2).double()), torch.tensor([1])).backward()
        moved.append(net)
    same(*moved)
    assert not torch.equal(moved[0].conv.weight, before.conv.weight)


class Twice(nn.Module):
    """One layer used twice, another with the first one's weight, and a plain one."""

    def __init__(self) -> None:
        super().__init__()
        self.twice, self.tied, self.once = nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1)
        self.other, self.head = nn.Conv2d(4, 4, 1), nn.Linear(4, 3)
        self.tied.weight = self.other.weight

    def forward(self, x: Tensor) -> Tensor:
        y = self.twice(torch.tanh(self.twice(x)))
        return self.head(self.tied(torch.tanh(self.other(self.once(y)))).mean([2, 3]))


def test_what_is_used_more_than_once_moves_when_all_of_its_gradient_is_there() -> None:
    net = network(InFloat64(Twice()))
    at_once, step = (stepper(net, Vanilla(), update=update) for update in ("layer", "step"))
    for _ in range(2):
        at_once.step_(*batch(), 0.1)
        step.step_(*batch(), 0.1)
        same(at_once.tail, step.tail)
    whole = 8 * (16 + 4)  # of a convolution used twice, whose gradient is whole
    assert at_once.accumulator_bytes == whole


class Largest(TorchDispatchMode):
    """The largest floating tensor that any operation makes, in elements."""

    def __init__(self) -> None:
        super().__init__()
        self.numel = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        before = {t.untyped_storage()._cdata for t in tree_leaves([args, kwargs]) if isinstance(t, Tensor)}
        out = func(*args, **(kwargs or {}))
        for t in tree_leaves(out):
            if isinstance(t, Tensor) and t.untyped_storage()._cdata not in before:
                self.numel = max(self.numel, t.untyped_storage().nbytes() // 4)
        return out


class Wide(nn.Module):
    """Weights far larger than anything else in the step."""

    def __init__(self, kernel: int) -> None:
        super().__init__()
        self.conv, self.norm, self.act = (
            nn.Conv2d(128, 160, kernel, padding=kernel // 2),
            nn.BatchNorm2d(160),
            nn.ReLU(),
        )
        self.head = nn.Linear(160, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.act(self.norm(self.conv(x))).mean([2, 3]))


@pytest.mark.parametrize(
    ("kernel", "method"),
    [(1, Vanilla()), (1, Quantized(8)), (1, ASI((1, 4, 2, 2))), (3, ASI((1, 4, 2, 2), warm=False))],
    ids=str,
)
@pytest.mark.parametrize("clip_norm", [None, 1.0])
def test_a_thin_gradient_is_never_whole(kernel: int, method: Method, clip_norm: float | None) -> None:
    net = network(Wide(kernel)).float()
    one = stepper(net, {"conv": method, "head": Vanilla()}, 1, update="layer", clip_norm=clip_norm)
    x = torch.randn(2, 128, 2, 2)
    weight = one.tail.conv.weight
    one.step_(x, torch.tensor([0, 1]), 0.01)
    moving = one._at_once.moving(0.1)  # the forward's own tensors are not at issue
    with moving:
        loss = F.cross_entropy(one.tail(x[:1].clone()), torch.tensor([0]))
        before = weight.detach().clone()
        with Largest() as largest:
            loss.backward()
    assert not torch.equal(weight, before)
    assert largest.numel <= weight.numel() // 3
    assert one.accumulator_bytes == 3 * 4 * 160  # bias, gamma and beta of the convolution


def test_a_gradient_that_is_whole_is_counted() -> None:
    one = stepper(network(InFloat64(Net())), Vanilla(), update="layer")
    net = one.tail.net
    assert one.accumulator_bytes == net.dense.weight.nbytes + net.dense.bias.nbytes
    one.step_(*batch(), 0.0)
    needed = one.largest.saved_bytes + one.accumulator_bytes
    assert one.accumulator_bytes == net.dense.weight.nbytes + net.dense.bias.nbytes
    training = {"update": "layer", "covers": "training"}
    stepper(network(InFloat64(Net())), Vanilla(), **training, budget_bytes=needed).step_(*batch(), 0.1)
    tight = stepper(network(InFloat64(Net())), Vanilla(), **training, budget_bytes=needed - 1)
    before = copy.deepcopy(tight.tail)
    with pytest.raises(OverBudgetError):
        tight.step_(*batch(), 0.1)
    same(tight.tail, before)


def test_outside_of_its_steps_the_network_has_plain_gradients() -> None:
    one = stepper(network(InFloat64(Net())), Vanilla(), update="layer")
    one.step_(*batch(), 0.1)
    before = copy.deepcopy(one.tail)
    one.accumulate(*batch(), side_by_side=False)
    same(one.tail, before)
    assert all(p.grad is not None for p in one.tail.parameters())
