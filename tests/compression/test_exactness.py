"""A compressed network equals the network: in every mode, under hooks, with modules used twice, in other precisions.

Methods that keep the whole input are exact, so any difference from plain PyTorch here is a defect of ours.
"""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations, parametrize, prune
from torch.utils.checkpoint import checkpoint

from fed_asi import layers
from fed_asi.compression.compress import compress_, uncompress_
from fed_asi.memory.meter import ActivationMeter
from fed_asi.methods import ASI, Quantized, Vanilla

MODES = ["train", "eval"]


def fill_(net: nn.Module, seed: int = 0) -> nn.Module:
    """Give every parameter and running statistic a value of its own, so that nothing cancels."""
    draws = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in [*net.named_parameters(), *net.named_buffers()]:
            if tensor.is_floating_point():
                values = torch.randn(tensor.shape, generator=draws, dtype=torch.float64)
                tensor.copy_(values.abs() + 0.5 if name.endswith("var") else 0.5 * values)
    return net.double()


def fixed_(net: nn.Module) -> nn.Module:
    """Fix every batch norm, as training with frozen statistics does."""
    for module in net.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.eval()
    return net


def x_of(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def step(net: nn.Module, x: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """The output, and the gradients by parameter and input, of a loss that weighs every output differently."""
    x = x.clone().requires_grad_()
    net.zero_grad()
    out = net(x * 1.0)
    (out * torch.linspace(-1, 1, out.numel(), dtype=out.dtype).view(out.shape)).sum().backward()
    found = {name: p.grad.clone() for name, p in net.named_parameters() if p.grad is not None}
    return out.detach(), found | {"x": x.grad.clone()}


def assert_same(
    net: nn.Module, x: Tensor, mode: str, change: Callable[[nn.Module], object] = lambda _: None
) -> None:
    """Compressed with every input kept whole, the network gives plain PyTorch's outputs and gradients.

    change: what is done to both after compress_.
    """
    net.train(mode == "train")
    plain, ours = copy.deepcopy(net), net
    compress_(ours, Vanilla())
    change(plain)
    change(ours)
    fixed_(plain)
    expected, gradients = step(plain, x)
    found, ours_gradients = step(ours, x)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-10)
    assert gradients.keys() == ours_gradients.keys()
    for name, gradient in gradients.items():
        torch.testing.assert_close(ours_gradients[name], gradient, rtol=1e-8, atol=1e-9, msg=name)


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.bn = nn.BatchNorm2d(4)
        self.relu = nn.ReLU()
        self.last = nn.Conv2d(4, 5, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.relu(self.bn(self.conv(x))))


# 1: eval mode


@pytest.mark.parametrize("method", [ASI((2, 2, 2, 2)), Quantized(8)], ids=str)
def test_a_model_in_eval_mode_is_compressed_whenever_autograd_records(method) -> None:
    net = fill_(Block()).eval()
    twin = copy.deepcopy(net).train()
    kept = []
    for one in (net, twin):
        compress_(one, method)
        with ActivationMeter(one) as meter:
            out = one(x_of(4, 3, 8, 8))
        kept.append(meter.saved_bytes)
        del out
    assert kept[0] == kept[1]
    with torch.no_grad(), ActivationMeter(net) as meter:
        net(x_of(4, 3, 8, 8))
    assert meter.saved_bytes == meter.state_bytes


def test_factors_move_by_a_training_step_alone() -> None:
    net = fill_(Block()).eval()
    compress_(net, ASI((2, 2, 2, 2)))
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01)
    step(net, x_of(4, 3, 8, 8))
    optimizer.step()
    before = layers.factors(net)
    assert before
    net(x_of(4, 3, 8, 8, seed=5))  # recorded by autograd, and never trained on
    with torch.no_grad():
        net.last.weight.add_(0.0)
        net.conv.weight.add_(0.0)
    after = layers.factors(net)
    assert all(torch.equal(a, b) for name in before for a, b in zip(before[name], after[name], strict=True))


# 5: global pools that are none


class Pooled(nn.Module):
    def __init__(
        self, conv: nn.Module, pool: Callable[[Tensor], Tensor], norm: nn.Module | None = None
    ) -> None:
        super().__init__()
        self.conv, self.norm, self.pool = conv, norm, pool

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        return self.pool(y if self.norm is None else self.norm(y)).flatten(1)


POOLS = {
    "conv3d, time kept": (nn.Conv3d(3, 4, 1), lambda y: y.mean([-2, -1]), None, (2, 3, 5, 4, 4)),
    "conv3d, all": (nn.Conv3d(3, 4, 1), lambda y: y.mean([2, 3, 4]), None, (2, 3, 5, 4, 4)),
    "conv2d, one axis": (nn.Conv2d(3, 4, 1), lambda y: y.mean([-1]), None, (2, 3, 4, 4)),
    "conv2d, mixed signs": (nn.Conv2d(3, 4, 1), lambda y: y.mean([2, -1]), None, (2, 3, 4, 4)),
    "conv1d": (nn.Conv1d(3, 4, 1), lambda y: y.mean(-1), None, (2, 3, 6)),
    "a norm of the batch": (
        nn.Conv2d(3, 4, 1),
        lambda y: y.mean([-2, -1]),
        nn.BatchNorm2d(4, track_running_stats=False),
        (4, 3, 4, 4),
    ),
    "a fixed norm": (nn.Conv2d(3, 4, 1), lambda y: y.mean([-2, -1]), nn.BatchNorm2d(4), (4, 3, 4, 4)),
    "adaptive, 1d on 2d": (nn.Conv2d(3, 4, 1), lambda y: y.mean([1, 2]), None, (2, 3, 4, 4)),
}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", POOLS)
def test_only_a_mean_over_all_of_space_pools(name: str, mode: str) -> None:
    conv, pool, norm, shape = POOLS[name]
    net = fill_(Pooled(copy.deepcopy(conv), pool, copy.deepcopy(norm)))
    if name == "a norm of the batch":  # which no form can fix: it keeps its own mode
        expected, gradients = step(copy.deepcopy(net).train(mode == "train"), x_of(*shape))
        compress_(net.train(mode == "train"), Quantized(8))
        found, ours = step(net, x_of(*shape))
        torch.testing.assert_close(found, expected)
        torch.testing.assert_close(ours["conv.weight"], gradients["conv.weight"], rtol=0.05, atol=0.05)
        return
    for method in (Vanilla(), Quantized(8)):
        one = copy.deepcopy(net)
        expected, gradients = step(fixed_(copy.deepcopy(net).train(mode == "train")), x_of(*shape))
        compress_(one.train(mode == "train"), method)
        found, ours = step(one, x_of(*shape))
        torch.testing.assert_close(found, expected)
        torch.testing.assert_close(ours["conv.weight"], gradients["conv.weight"], rtol=0.05, atol=0.05)


# 6: hooks


def mask_channels(_module: nn.Module, _args: object, output: Tensor) -> Tensor:
    return output * torch.tensor([1.0, 0.0, 1.0, 0.5], dtype=output.dtype).view(1, -1, 1, 1)


def double_input(_module: nn.Module, args: tuple[Tensor]) -> tuple[Tensor]:
    return (args[0] * 2,)


HOOKS: dict[str, Callable[[nn.Module], object]] = {
    "conv": lambda net: net.conv.register_forward_hook(mask_channels),
    "bn": lambda net: net.bn.register_forward_hook(mask_channels),
    "relu": lambda net: net.relu.register_forward_pre_hook(double_input),
    "relu after": lambda net: net.relu.register_forward_hook(mask_channels),
    "backward": lambda net: net.bn.register_full_backward_hook(lambda _m, g, _o: (g[0] * 3,)),
}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("late", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("name", HOOKS)
def test_nothing_is_fused_across_a_hook(name: str, late: bool, mode: str) -> None:
    net = fill_(Block())
    if late:
        assert_same(net, x_of(2, 3, 6, 6), mode, HOOKS[name])
    else:
        HOOKS[name](net)
        assert_same(net, x_of(2, 3, 6, 6), mode)


@pytest.mark.parametrize("late", [False, True])
def test_a_hook_that_only_looks_sees_the_plain_values(late: bool) -> None:
    seen: list[Tensor] = []
    net = fill_(Block())
    plain = copy.deepcopy(net)
    for one in (fixed_(plain), net):
        if one is net and late:
            compress_(net, Vanilla())
        for module in (one.conv, one.bn, one.relu):
            module.register_forward_hook(lambda _m, _a, out: seen.append(out.detach().clone()))
        if one is net and not late:
            compress_(net, Vanilla())
        step(one, x_of(2, 3, 6, 6))
    for ours, theirs in zip(seen[:3], seen[3:], strict=True):
        torch.testing.assert_close(ours, theirs)


def test_a_hook_in_front_of_a_global_pool_sees_the_plain_values() -> None:
    net = fill_(Pooled(nn.Conv2d(3, 4, 1), lambda y: y.mean([-2, -1])))
    seen: list[Tensor] = []
    plain = copy.deepcopy(net)
    compress_(net, Quantized(8))
    for one in (plain, net):
        one.conv.register_forward_hook(lambda _m, _a, out: seen.append(out.detach().clone()))
        step(one, x_of(2, 3, 4, 4))
    torch.testing.assert_close(seen[0], seen[1])


# 7: modes


class ByMode(nn.Module):
    """What stands between the layers depends on the mode."""

    def __init__(self, functional: bool) -> None:
        super().__init__()
        self.conv, self.bn, self.relu = nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.ReLU()
        self.functional = functional

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        if self.functional and self.training:
            x = F.dropout2d(x, 1.0, True)
        elif not self.functional and self.training:
            x = x * 2
        return self.relu(self.bn(x)).mean((2, 3))


@pytest.mark.parametrize("functional", [False, True])
@pytest.mark.parametrize("compressed_in", MODES)
@pytest.mark.parametrize("used_in", MODES)
def test_a_change_of_mode_changes_what_it_would(functional: bool, compressed_in: str, used_in: str) -> None:
    net = fill_(ByMode(functional))
    assert_same(net, x_of(2, 3, 5, 5), compressed_in, lambda one: one.train(used_in == "train"))


# 8: in place


class PreActivated(nn.Module):
    """A residual block that begins with a ReLU in place: its input is read again."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.relu = nn.Conv2d(3, 4, 1), nn.ReLU(inplace=True)
        self.conv, self.second = nn.Conv2d(4, 4, 3, padding=1), nn.ReLU6(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        y = self.conv(self.relu(x))
        self.second(y)  # its result is the input itself
        return x + y


class NormThenTwice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.bn, self.relu = nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.ReLU(inplace=True)
        self.last = nn.Conv2d(4, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.bn(self.conv(x))
        return self.last(self.relu(x)) + x


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("block", [PreActivated, NormThenTwice])
def test_what_is_written_in_place_is_read_as_written(block: type[nn.Module], mode: str) -> None:
    assert_same(fill_(block()), x_of(2, 3, 5, 5), mode)


# 9: weights that are no plain parameters

WEIGHTS: dict[str, Callable[[nn.Module], object]] = {
    "pruned": lambda conv: prune.l1_unstructured(conv, "weight", amount=0.4),
    "weight norm": torch.nn.utils.weight_norm,
    "spectral norm": torch.nn.utils.spectral_norm,
    "new weight norm": parametrizations.weight_norm,
    "parametrised": lambda conv: parametrize.register_parametrization(conv, "weight", nn.Tanh()),
}


@pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning")
@pytest.mark.parametrize("name", WEIGHTS)
def test_a_computed_weight_is_left_plain_and_trains(name: str) -> None:
    net = fill_(Block())
    WEIGHTS[name](net.conv)
    net.double().eval()  # spectral norm moves its vectors in training mode
    plain = fixed_(copied_by_state(net, name))
    report = compress_(net, Vanilla())
    line = report["conv"]
    assert line.action == "left", line
    assert "plain parameter" in line.reason
    expected, gradients = step(plain, x_of(2, 3, 6, 6))
    found, ours = step(net, x_of(2, 3, 6, 6))
    torch.testing.assert_close(found, expected)
    assert gradients.keys() == ours.keys()
    for key in gradients:
        torch.testing.assert_close(ours[key], gradients[key], msg=key)
    uncompress_(net)


def copied_by_state(net: nn.Module, name: str) -> nn.Module:
    twin = fill_(Block())
    WEIGHTS[name](twin.conv)
    twin.double().eval().load_state_dict(net.state_dict())
    return twin


# 11: subclasses of batch norm


class OwnNorm(nn.BatchNorm2d):
    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input) * 2


@pytest.mark.parametrize("mode", MODES)
def test_every_batch_norm_is_fixed_also_one_of_ones_own(mode: str) -> None:
    net = fill_(nn.Sequential(nn.Conv2d(3, 4, 1), OwnNorm(4), nn.ReLU()))
    before = net[1].running_mean.clone()
    assert_same(net, x_of(3, 3, 5, 5), mode)
    assert torch.equal(net[1].running_mean, before)
    again = copy.deepcopy(net)
    again(x_of(3, 3, 5, 5))
    assert torch.equal(again[1].running_mean, before)
    uncompress_(net)
    assert type(net[1]) is OwnNorm


# 4: random layers whose forward is done twice


class Random(nn.Module):
    def __init__(self, twice: bool) -> None:
        super().__init__()
        self.conv, self.drop, self.last = nn.Conv2d(3, 4, 1), nn.Dropout(0.5), nn.Conv2d(4, 4, 1)
        self.twice = twice

    def part(self, x: Tensor) -> Tensor:
        return self.last(self.drop(torch.relu(self.drop(self.conv(x)))))

    def forward(self, x: Tensor) -> Tensor:
        return checkpoint(self.part, x, use_reentrant=False) if self.twice else self.part(x)


def test_a_second_forward_draws_what_the_first_drew() -> None:
    plain, twice = fill_(Random(False)).train(), fill_(Random(True)).train()
    for net in (plain, twice):
        compress_(net, Vanilla(), seed=3)
    for batch in range(3):  # forwards of other batches, two of them before one backward
        ours, theirs = [], []
        for net, found in ((plain, ours), (twice, theirs)):
            net.zero_grad()
            parts = [net(x_of(2, 3, 5, 5, seed=10 * batch + i)) for i in range(2)]
            sum((part * part).sum() for part in parts).backward()
            found += [*[part.detach() for part in parts], *[p.grad.clone() for p in net.parameters()]]
        for a, b in zip(ours, theirs, strict=True):
            torch.testing.assert_close(a, b)


# 14: lower precision


@pytest.mark.parametrize("method", [Vanilla(), ASI((4, 3, 6, 6)), Quantized(8)], ids=str)
def test_under_autocast_the_loss_is_that_of_plain_torch_to_its_rounding(method) -> None:
    net = nn.Sequential(fill_(Block()), nn.Flatten(), nn.Linear(5 * 36, 7)).float().train()
    plain = fixed_(copy.deepcopy(net))
    compress_(net, {"0.conv": method, "0.last": Vanilla(), "2": Vanilla()})
    x, y = x_of(4, 3, 6, 6).float(), torch.arange(4)
    losses, gradients = [], []
    for one in (plain, net):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = F.cross_entropy(one(x), y)
        loss.backward()
        losses.append(loss.item())
        gradients.append(one[0].conv.weight.grad.flatten())
    with torch.no_grad():
        exact = F.cross_entropy(plain(x), y).item()
    assert abs(losses[1] - exact) <= max(3 * abs(losses[0] - exact), 0.02 * exact)
    assert F.cosine_similarity(*gradients, dim=0) > 0.98
    assert gradients[1].dtype == torch.float32
