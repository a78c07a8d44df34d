"""What a network's data flow says: which batch norm and activation follow a convolution, what is pooled.

Read from a torch.fx trace. A network that cannot be traced still trains, unfused, with the reason kept.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import torch
from torch import fx, nn
from torch.nn import functional as F

from fed_asi.layers import kind_of, original_class, state_of
from fed_asi.layers.classes import BATCH_NORMS, CONVOLUTIONS

# Blocks whose product `scale * x` has a form of its own, so the trace must not look inside.
_BLOCKS = frozenset({"SqueezeExcitation", "StochasticDepth"})


@dataclass(frozen=True, slots=True)
class Graph:
    """The parts of a network's data flow that compression needs; names are qualified module names.

    order: modules called, in order, each once.
    norms: convolution -> the batch norm that takes its output.
    fusable: (layer -> batch norms and activations) each the only user of the one before, called once.
    pooled: convolutions whose output, behind a fusable batch norm at most, only feeds a global average pool.
    repeated: modules called more than once in a forward.
    reason: why the network could not be traced, or None; then order is the modules' own.
    """

    order: tuple[str, ...]
    norms: Mapping[str, str] = field(default_factory=dict)
    fusable: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    pooled: frozenset[str] = frozenset()
    repeated: frozenset[str] = frozenset()
    reason: str | None = None


class Tracer(fx.Tracer):
    """Traces a network, looking inside neither compressed layers nor blocks with a form of their own."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        """Return whether the trace calls module `m` instead of looking inside."""
        return (
            state_of(m) is not None
            or original_class(m).__name__ in _BLOCKS
            or kind_of(m) is not None
            or super().is_leaf_module(m, module_qualified_name)
        )


def analyse(model: nn.Module) -> Graph:
    """Return what the data flow of `model` says; it is only read, never run on data."""
    try:
        nodes = list((model.graph if isinstance(model, fx.GraphModule) else Tracer().trace(model)).nodes)
    except Exception as error:  # whatever a forward raises when it is run on symbols
        return _untraced(model, f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}")
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
        pooled=frozenset(name for name, node in layers.items() if flow.is_pooled(node)),
        repeated=frozenset(name for name, count in counts.items() if count > 1),
    )


class _Flow:
    """Questions about one traced network; `once` has the modules called exactly once."""

    def __init__(self, modules: Mapping[str, nn.Module], once: Mapping[str, fx.Node]) -> None:
        self.modules = modules
        self.once = once

    def module(self, node: fx.Node) -> nn.Module | None:
        name = str(node.target)
        return self.modules[name] if node.op == "call_module" and name in self.once else None

    def norm_of(self, node: fx.Node) -> str | None:
        """Return the batch norm that takes the convolution's output, if it is the only one."""
        norms = [user for user in node.users if isinstance(self.module(user), BATCH_NORMS)]
        return str(norms[0].target) if len(norms) == 1 else None

    def chain(self, node: fx.Node) -> tuple[str, ...]:
        """Return the batch norm and activation behind a layer, each the only user of the one before."""
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

    def is_pooled(self, node: fx.Node) -> bool:
        """Return whether the output, normalised at most, only feeds a global average pool."""
        if len(node.users) != 1:
            return False
        (user,) = node.users
        if isinstance(self.module(user), BATCH_NORMS):
            return self.is_pooled(user)
        return self._pools(user)

    def _pools(self, node: fx.Node) -> bool:
        module = self.module(node)
        if isinstance(module, nn.AdaptiveAvgPool2d):
            return module.output_size in (1, (1, 1))
        if is_pool_call(node):
            return True
        if (node.op, node.target) == ("call_method", "mean") or node.target is torch.mean:
            axes = _argument(node, 1, "dim")
            tail = node.args[1:] if node.op == "call_method" and len(node.args) > 2 else None
            axes = tail if tail and all(isinstance(a, int) for a in tail) else axes
            return isinstance(axes, (tuple, list)) and sorted(axes) in ([2, 3], [-2, -1])
        return False


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
    """Return the modules in their own order, each batch norm paired with the convolution before it."""
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
