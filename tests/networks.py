"""Random small networks for property tests: a specification that hypothesis draws and shrinks, and its module."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations, parametrize, prune
from torch.utils.checkpoint import checkpoint

CHANNELS = 4
Op = tuple[Any, ...]


class OwnNorm(nn.BatchNorm2d):
    """A batch norm of somebody's own."""

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input) * 1.5


class Halved(nn.Module):
    """A parametrisation."""

    def forward(self, weight: Tensor) -> Tensor:
        return weight * 0.5


LAYERS: dict[str, Callable[[], nn.Module]] = {
    "conv1": lambda: nn.Conv2d(CHANNELS, CHANNELS, 1),
    "conv1 no bias": lambda: nn.Conv2d(CHANNELS, CHANNELS, 1, bias=False),
    "conv3": lambda: nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1),
    "depthwise": lambda: nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1, groups=CHANNELS),
    "grouped": lambda: nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1, groups=2, bias=False),
    "reflect": lambda: nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1, padding_mode="reflect"),
    "transposed": lambda: nn.ConvTranspose2d(CHANNELS, CHANNELS, 3, padding=1),
    "norm": lambda: nn.BatchNorm2d(CHANNELS),
    "plain norm": lambda: nn.BatchNorm2d(CHANNELS, affine=False),
    "batch norm": lambda: nn.BatchNorm2d(CHANNELS, track_running_stats=False),
    "own norm": lambda: OwnNorm(CHANNELS),
    "group norm": lambda: nn.GroupNorm(2, CHANNELS),
    "relu": nn.ReLU,
    "relu in place": lambda: nn.ReLU(inplace=True),
    "relu6 in place": lambda: nn.ReLU6(inplace=True),
    "leaky": lambda: nn.LeakyReLU(0.2),
    "leaky in place": lambda: nn.LeakyReLU(0.2, inplace=True),
    "hardtanh": lambda: nn.Hardtanh(-0.5, 0.7),
    "hardsigmoid": nn.Hardsigmoid,
    "hardswish in place": lambda: nn.Hardswish(inplace=True),
    "silu": nn.SiLU,
    "maxpool": lambda: nn.MaxPool2d(2, stride=1),
    "avgpool": lambda: nn.AvgPool2d(3, stride=1, padding=1),
    "global pool": lambda: nn.AdaptiveAvgPool2d(1),
    "identity": nn.Identity,
}
FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "F.relu": F.relu,
    "F.relu_": F.relu_,
    "double": lambda x: x * 2,
    "mean": lambda x: x.mean((2, 3), keepdim=True),
    "half mean": lambda x: x.mean([-1], keepdim=True),
    "F.pool": lambda x: F.adaptive_avg_pool2d(x, 1),
    "transpose": lambda x: x.transpose(2, 3),
}
WEIGHTS: dict[str, Callable[[nn.Module], object]] = {
    "pruned": lambda conv: prune.l1_unstructured(conv, "weight", amount=0.3),
    "weight norm": parametrizations.weight_norm,
    "parametrised": lambda conv: parametrize.register_parametrization(conv, "weight", Halved()),
}


def _scaled(_module: nn.Module, _args: object, output: Tensor) -> Tensor:
    return output * 0.75


def _shifted(_module: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return (args[0] + 0.25,)


def _looked(_module: nn.Module, _args: object, _output: Tensor) -> None:
    return None


HOOKS: dict[str, Callable[[nn.Module], object]] = {
    "after": lambda module: module.register_forward_hook(_scaled),
    "before": lambda module: module.register_forward_pre_hook(_shifted),
    "looks": lambda module: module.register_forward_hook(_looked),
    "backward": lambda module: module.register_full_backward_hook(lambda _m, g, _o: (g[0] * 1.25,)),
}


class Drawn(nn.Module):
    """The network of a specification: a stem, its operations, and a head behind a mean over space."""

    def __init__(self, ops: list[Op]) -> None:
        super().__init__()
        self.stem, self.head = nn.Conv2d(3, CHANNELS, 1), nn.Linear(CHANNELS, 3)
        self.parts = nn.ModuleList()
        self.program = [self._built(op) for op in ops]
        self.checkpoints = True  # False: what would be done twice is done once

    def _built(self, op: Op) -> Op:
        kind = op[0]
        if kind == "layer":
            self.parts.append(LAYERS[op[1]]())
            return ("call", len(self.parts) - 1)
        if kind == "again":
            return ("call", op[1] % len(self.parts)) if len(self.parts) else ("function", "double")
        if kind in ("residual", "residual in place", "checkpoint", "in training", "in eval"):
            return (kind, [self._built(inner) for inner in op[1]])
        return op

    def forward(self, x: Tensor) -> Tensor:
        x = self._run(self.stem(x), self.program)
        return self.head(x.mean((2, 3)))

    def _run(self, x: Tensor, program: list[Op]) -> Tensor:
        for kind, what in program:
            if kind == "call":
                x = self.parts[what](x)
            elif kind == "function":
                x = FUNCTIONS[what](x)
            elif kind == "residual":
                y = self._run(x, what)
                x = x + y if x.shape == y.shape else y
            elif kind == "residual in place":
                y = self._run(x, what)
                if x.shape == y.shape and y is not x:
                    y += x
                x = y
            elif kind == "checkpoint":
                again = self.checkpoints
                x = checkpoint(self._run, x, what, use_reentrant=False) if again else self._run(x, what)
            elif kind == ("in training" if self.training else "in eval"):
                x = self._run(x, what)
        return x


def operations(depth: int = 2) -> st.SearchStrategy[Op]:
    """Draw one operation; nested ones hold up to three more."""
    single = st.one_of(
        st.tuples(st.just("layer"), st.sampled_from(sorted(LAYERS))),
        st.tuples(st.just("layer"), st.sampled_from(["conv1", "conv3", "norm", "relu", "relu in place"])),
        st.tuples(st.just("function"), st.sampled_from(sorted(FUNCTIONS))),
        st.tuples(st.just("again"), st.integers(0, 7)),
    )
    if depth == 0:
        return single
    several = st.lists(operations(depth - 1), min_size=1, max_size=3)
    nested = ["residual", "residual in place", "checkpoint", "in training", "in eval"]
    return st.one_of(single, single, st.tuples(st.sampled_from(nested), several))


def changes() -> st.SearchStrategy[list[tuple[str, str, int]]]:
    """Draw hooks and computed weights: (group, name, which module)."""
    one = st.one_of(
        st.tuples(st.just("hook"), st.sampled_from(sorted(HOOKS)), st.integers(0, 9)),
        st.tuples(st.just("weight"), st.sampled_from(sorted(WEIGHTS)), st.integers(0, 9)),
    )
    return st.lists(one, max_size=2)


def change_(net: Drawn, drawn: list[tuple[str, str, int]], group: str) -> None:
    """Put the drawn hooks on, or compute the drawn weights."""
    modules = [net.stem, *net.parts]
    plain = [
        m for m in modules if isinstance(m, (nn.Conv2d, nn.ConvTranspose2d)) and "weight" in m._parameters
    ]
    for kind, name, place in drawn:
        if kind == group == "hook":
            HOOKS[name](modules[place % len(modules)])
        elif kind == group == "weight" and plain:
            WEIGHTS[name](plain.pop(place % len(plain)))


def fixed_(net: nn.Module) -> None:
    """Fix the statistics of every batch norm that has some."""
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()


def tensors_of(net: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Every parameter and buffer."""
    yield from net.named_parameters()
    yield from net.named_buffers()


def made(ops: list[Op], drawn: list[tuple[str, str, int]], dtype: torch.dtype) -> tuple[Drawn, Drawn]:
    """Two equal networks, their weights computed as drawn, filled with values that cancel nowhere."""
    nets = Drawn(ops), Drawn(ops)
    for net in nets:
        draws = torch.Generator().manual_seed(7)
        with torch.no_grad():
            for name, tensor in tensors_of(net):
                if tensor.is_floating_point():
                    values = torch.randn(tensor.shape, generator=draws)
                    tensor.copy_(values.abs() + 0.5 if name.endswith("var") else 0.6 * values)
        net.to(dtype)
        change_(net, drawn, "weight")
    return nets


def step(net: nn.Module, x: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """The output, and every gradient."""
    x = copy.deepcopy(x).requires_grad_()
    net.zero_grad()
    out = net(x * 1)
    (out * torch.linspace(-1, 1, out.numel(), dtype=out.dtype).view(out.shape)).sum().backward()
    found = {name: p.grad.clone() for name, p in net.named_parameters() if p.grad is not None}
    return out.detach(), found | {"x": x.grad.clone()}


class Decoder(nn.Module):
    """A network with a transposed convolution in it."""

    def __init__(self) -> None:
        super().__init__()
        self.down = nn.Conv2d(3, 6, 3, stride=2, padding=1)
        self.up = nn.ConvTranspose2d(6, 4, 2, stride=2)
        self.head = nn.Linear(4, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.relu(self.up(torch.relu(self.down(x)))).mean((2, 3)))
