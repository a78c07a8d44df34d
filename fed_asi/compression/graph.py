"""A network's data flow: which batch norm and activation follow a convolution, and what is pooled.

It is read from torch.fx traces, one in training mode and one in eval mode; only what holds in both is reported.
A network that cannot be traced still trains, without fusing, and the reason is kept.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise, takewhile
from typing import Any, TypeVar

import torch
from torch import fx, nn
from torch.nn import functional as F

from fed_asi.layers import kind_of, original_class, state_of
from fed_asi.layers.classes import BATCH_NORMS, CONVOLUTIONS

# Blocks whose product `scale * x` has a compressed form of its own: the trace must not enter them.
Said = TypeVar("Said")
_BLOCKS = frozenset({"SqueezeExcitation", "StochasticDepth"})


@dataclass(frozen=True, slots=True)
class Graph:
    """The parts of a network's data flow that compression needs; names are qualified module names.

    order: every module called, once, in order.
    norms: convolution -> the batch norm that takes its output.
    fusable: layer -> the batch norms and activations that follow it, each the only user of the one before and
    called once.
    pooled: layer -> the modules up to its pool, where the output, at most normalised, only feeds a mean over all
    spatial
        modes.
    repeated: modules called more than once in a forward.
    reason: why the network could not be traced, or None; if it could not, order is that of the modules in the model.
    """

    order: tuple[str, ...]
    norms: Mapping[str, str] = field(default_factory=dict)
    fusable: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    pooled: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    repeated: frozenset[str] = frozenset()
    reason: str | None = None


class ThreadTracer(fx.Tracer):
    """Traces what its own thread calls, one trace at a time.

    A trace replaces `nn.Module.__call__` for all of the process. Other threads may compute meanwhile, such as the
    features of a frozen part: their calls go through as they are, and leave no mark in the trace.
    """

    _alone = (
        threading.Lock()
    )  # traces that end in another order than they began would leave the replacement in place
    _thread = 0

    def trace(self, root: nn.Module | Callable[..., Any], concrete_args: Any = None) -> fx.Graph:
        """Return the graph of a network, once no other thread traces."""
        with ThreadTracer._alone:
            self._thread = threading.get_ident()
            return super().trace(root, concrete_args)

    def call_module(self, m: nn.Module, forward: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        """Return what a call of a module gives: a symbol in the thread that traces, a value in all others."""
        if threading.get_ident() != self._thread:
            return forward(*args, **kwargs)
        return super().call_module(m, forward, args, kwargs)

    def getattr(self, attr: str, attr_val: Any, parameter_proxy_cache: dict[str, fx.Proxy]) -> Any:
        """Return an attribute of a module: of a parameter, a symbol in the thread that traces."""
        if threading.get_ident() != self._thread:
            return attr_val
        return super().getattr(attr, attr_val, parameter_proxy_cache)


class Tracer(ThreadTracer):
    """Traces a network without entering compressed layers and blocks with a compressed form of their own."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        """Return whether the trace records module `m` as one call instead of entering it."""
        return (
            state_of(m) is not None
            or original_class(m).__name__ in _BLOCKS
            or kind_of(m) is not None
            or super().is_leaf_module(m, module_qualified_name)
        )


def analyse(model: nn.Module) -> Graph:
    """Return the data flow of `model` that both modes share. The model is only read, never run on data."""
    try:
        if isinstance(model, fx.GraphModule):  # traced already, so its code is the same in both modes
            return _read(model, list(model.graph.nodes))
        found = []
        for mode in (model.training, not model.training):
            with in_mode(model, mode):
                found.append(_read(model, list(Tracer().trace(model).nodes)))
    except Exception as error:  # whatever a forward raises when it is run on symbols
        return _untraced(model, f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}")
    return _both(*found)


@contextmanager
def in_mode(model: nn.Module, training: bool) -> Iterator[None]:
    """Put all of the model in one mode; afterwards put each module back into the mode it had."""
    modes = {module: module.training for module in model.modules()}
    model.train(training)
    try:
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode


def _both(now: Graph, other: Graph) -> Graph:
    """Return what two traces of one network share, in the order of the first, then modules that only the other has."""
    return Graph(
        order=tuple(dict.fromkeys([*now.order, *other.order])),
        norms=_alike(now.norms, other.norms),
        fusable={name: chain for name in now.fusable if (chain := _common(name, now, other))},
        pooled=_alike(now.pooled, other.pooled),
        repeated=now.repeated | other.repeated,
    )


def _alike(now: Mapping[str, Said], other: Mapping[str, Said]) -> dict[str, Said]:
    return {name: said for name, said in now.items() if other.get(name) == said}


def _common(name: str, now: Graph, other: Graph) -> tuple[str, ...]:
    """Return the modules with which the chains of both traces begin."""
    pairs = zip(now.fusable[name], other.fusable.get(name, ()), strict=False)
    return tuple(one for one, _ in takewhile(lambda pair: pair[0] == pair[1], pairs))


def _read(model: nn.Module, nodes: Sequence[fx.Node]) -> Graph:
    """Return the data flow of one trace."""
    modules = dict(model.named_modules())
    calls = [node for node in nodes if node.op == "call_module"]
    counts = Counter(str(node.target) for node in calls)
    once = {str(node.target): node for node in calls if counts[str(node.target)] == 1}
    flow = _Flow(modules, once)
    layers = {name: node for name, node in once.items() if isinstance(modules[name], CONVOLUTIONS)}
    return Graph(
        order=tuple(counts),
        norms={name: norm for name, node in layers.items() if (norm := flow.norm_of(node))},
        fusable={name: chain for name, node in once.items() if (chain := flow.chain(node))},
        pooled={name: up for name, node in layers.items() if (up := flow.up_to_pool(node)) is not None},
        repeated=frozenset(name for name, count in counts.items() if count > 1),
    )


class _Flow:
    """Answers questions about one traced network; `once` has the modules that are called exactly once."""

    def __init__(self, modules: Mapping[str, nn.Module], once: Mapping[str, fx.Node]) -> None:
        self.modules = modules
        self.once = once

    def module(self, node: fx.Node) -> nn.Module | None:
        name = str(node.target)
        return self.modules[name] if node.op == "call_module" and name in self.once else None

    def norm_of(self, node: fx.Node) -> str | None:
        """Return the batch norm that takes the convolution's output, if it is the only user of it."""
        norms = [user for user in node.users if isinstance(self.module(user), BATCH_NORMS)]
        return str(norms[0].target) if len(norms) == 1 else None

    def chain(self, node: fx.Node) -> tuple[str, ...]:
        """Return the batch norm and activation that follow a layer, each the only user of the one before."""
        found: list[str] = []
        start = self.module(node)
        while len(node.users) == 1 and len(found) < 2:
            (node,) = node.users
            module = self.module(node)
            is_norm = isinstance(module, BATCH_NORMS) and isinstance(start, CONVOLUTIONS) and not found
            if not is_norm and not is_activation(module):
                break
            found.append(str(node.target))
            if not is_norm:
                break
        return tuple(found)

    def up_to_pool(self, node: fx.Node) -> tuple[str, ...] | None:
        """Return the modules between a layer and its global pool; None where anything else stands between.

        A batch norm in between must be one that can be fixed: with its running statistics it is affine.
        """
        space, found = _space_of(self.module(node)), list[str]()
        for _ in range(2):
            if len(node.users) != 1:
                return None
            (node,) = node.users
            module = self.module(node)
            if self._pools(node, space):
                return (*found, *([str(node.target)] if module is not None else []))
            if not isinstance(module, BATCH_NORMS) or module.running_mean is None or found:
                return None
            found.append(str(node.target))
        return None

    def _pools(self, node: fx.Node, space: int) -> bool:
        """Return whether the node is a mean over all `space` spatial axes and no others."""
        module = self.module(node)
        if isinstance(module, nn.AdaptiveAvgPool2d):
            return space == 2 and module.output_size in (1, (1, 1))
        if is_pool_call(node):
            return space == 2
        if (node.op, node.target) == ("call_method", "mean") or node.target is torch.mean:
            return _axes(node) == set(range(2, 2 + space)) or _axes(node) == set(range(-space, 0))
        return False


def _space_of(module: nn.Module | None) -> int:
    """Return how many spatial axes a convolution's output has."""
    return len(module.kernel_size) if isinstance(module, CONVOLUTIONS) else 0


def _axes(node: fx.Node) -> set[int]:
    """Return the axes of a mean, all of one sign; an empty set where they are unknown or the dtype changes."""
    axes = _argument(node, 1, "dim")
    if isinstance(axes, int) and not isinstance(axes, bool):
        axes = [axes, *(a for a in node.args[2:] if isinstance(a, int) and not isinstance(a, bool))]
    whole = isinstance(axes, (tuple, list)) and all(isinstance(axis, int) for axis in axes)
    return set(axes) if whole and node.kwargs.get("dtype") is None else set()


def is_activation(module: nn.Module | None) -> bool:
    """Return whether a module is an activation that works element by element."""
    if module is None or isinstance(module, nn.MultiheadAttention):
        return False
    return original_class(module).__module__ == "torch.nn.modules.activation"


def is_pool_call(node: fx.Node) -> bool:
    """Return whether a node calls a global average pool as a function."""
    called = node.op == "call_function" and node.target is F.adaptive_avg_pool2d
    return called and _argument(node, 1, "output_size") in (1, (1, 1), [1, 1])


def _argument(node: fx.Node, position: int, name: str) -> Any:
    return node.args[position] if len(node.args) > position else node.kwargs.get(name)


def _untraced(model: nn.Module, reason: str) -> Graph:
    """Return the modules in the order of the model, each batch norm paired with the convolution before it."""
    order = tuple(name for name, module in model.named_modules() if not list(module.children()))
    modules = dict(model.named_modules())
    norms = {}
    for before, after in pairwise(order):
        conv, norm = modules[before], modules[after]
        if (
            isinstance(conv, CONVOLUTIONS)
            and isinstance(norm, BATCH_NORMS)
            and conv.out_channels == norm.num_features
        ):
            norms[before] = after
    return Graph(order=order, norms=norms, reason=reason)
