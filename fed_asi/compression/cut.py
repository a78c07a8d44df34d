"""Cut a network in two: a frozen trunk whose features can be kept, and the tail that trains."""

from __future__ import annotations

import copy
from collections.abc import Collection, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from fed_asi.compression.graph import Tracer, in_mode, is_pool_call
from fed_asi.compression.tune import with_tied
from fed_asi.errors import ConfigError, UnsupportedLayerError

Nodes = Sequence[fx.Node]


def cut(
    model: nn.Module, trained: Collection[str], example: torch.Tensor, *, latest: bool = False
) -> tuple[fx.GraphModule, fx.GraphModule]:
    """Return (trunk, tail) with tail(trunk(x)) equal to model(x), linked by one tensor that is as small as possible.

    trained: qualified names of all layers or parameters that any device trains; they are in the tail.
    example: (B, 3, H, W), a batch from which the sizes are read.
    The cut lies before the first trained layer, where a single tensor is passed on: at the place where it has the
    fewest bytes a sample, the last of equals; with `latest`, at the last place of all. The trunk is a frozen copy in
    eval mode.
    The tail has the model's own modules and Parameters under their own names.
    Raises UnsupportedLayerError for a network that cannot be traced, ConfigError for an example that the network
    cannot take, or if `trained` names nothing.
    """
    nodes = _trace(model, example)
    first = _first_trained(nodes, with_tied(model, trained))
    links = _links(nodes[:first], model, len(example))
    at = max(links) if latest else min(links, key=lambda i: (_bytes(nodes[i]), -i))
    trunk = fx.GraphModule(model, _trunk_graph(nodes[: at + 1]), "Trunk")
    tail = fx.GraphModule(model, _tail_graph(nodes, at), "Tail")
    _name_pools_(tail)
    return copy.deepcopy(trunk).eval().requires_grad_(False), tail


def segments(model: nn.Module, trained: Collection[str], example: torch.Tensor) -> tuple[fx.GraphModule, ...]:
    """Return parts whose composition is the model, one for each trained layer where one tensor links them.

    trained, example, errors: as of `cut`. The parts have the model's own modules and Parameters.
    """
    nodes = _trace(model, example)
    _first_trained(nodes, trained)
    links = _links(nodes, model, len(example))
    starts = [i for i, node in enumerate(nodes) if _trains(node, trained) and _weighs(node, model)]
    ends: list[int] = []
    for earlier, start in zip([0, *starts], starts, strict=False):
        between = [i for i in links if max(earlier, ends[-1] + 1 if ends else 0) <= i < start]
        if between:
            ends.append(min(between, key=lambda i: (_bytes(nodes[i]), -i)))
    bounds = [0, *(i for i in ends if i > 0), len(nodes) - 2]  # the last node is the output
    return tuple(
        fx.GraphModule(model, _part_graph(nodes, start, end), "Segment")
        for start, end in pairwise(bounds)
        if start < end
    )


def cut_point(trunk: fx.GraphModule) -> str:
    """Return the name of the value that leaves the trunk, such as "blocks_11_point_linear_bn"."""
    (output,) = (node for node in trunk.graph.nodes if node.op == "output")
    return str(output.args[0])


def folded(trunk: fx.GraphModule) -> fx.GraphModule:
    """Return a quicker copy of a frozen trunk: batch norms folded into their convolutions, channels last.

    Its output differs from the trunk's own by float32 rounding, about 1e-6 of its norm.
    """
    quick = copy.deepcopy(trunk)
    for node in list(quick.graph.nodes):
        before = node.args[0] if node.args else None
        if not isinstance(before, fx.Node) or len(before.users) > 1:
            continue
        conv, norm = _module(quick, before), _module(quick, node)
        if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d) and norm.track_running_stats:
            quick.set_submodule(str(before.target), fuse_conv_bn_eval(conv, norm))
            node.replace_all_uses_with(before)
            quick.graph.erase_node(node)
    quick.delete_all_unused_submodules()
    quick.recompile()
    return quick.to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


def _module(network: fx.GraphModule, node: fx.Node) -> nn.Module | None:
    return network.get_submodule(str(node.target)) if node.op == "call_module" else None


class _Tracer(Tracer):
    """Keeps modules without children as leaves: what they do may depend on `training`, which a trace would fix."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return next(m.children(), None) is None or super().is_leaf_module(m, module_qualified_name)


class _Sizes(fx.Interpreter):
    """Records every tensor's shape and dtype at its node; torch's own ShapeProp imports sympy, half a second."""

    def run_node(self, n: fx.Node) -> Any:
        value = super().run_node(n)
        if isinstance(value, torch.Tensor):
            n.meta["size"] = (value.shape, value.dtype)
        return value


def _trace(model: nn.Module, example: torch.Tensor) -> Nodes:
    """Return the nodes of the model's data flow, in order, each with the size of its value for `example`."""
    try:
        with in_mode(model, training=False), torch.no_grad():
            traced = fx.GraphModule(model, _Tracer().trace(model))
            _Sizes(traced).run(example)
    except Exception as error:  # whatever a forward raises when it is run on symbols
        _check_takes(model, example)
        first_line = (str(error).splitlines() or [""])[0]
        raise UnsupportedLayerError(
            f"{type(model).__name__} cannot be cut into a trunk and a tail: torch.fx says {first_line!r}; "
            "train it whole"
        ) from error
    for node in traced.graph.nodes:
        node.type = None  # a GraphModule cannot pickle annotations that are strings
    return list(traced.graph.nodes)


def _check_takes(model: nn.Module, example: torch.Tensor) -> None:
    """Raise ConfigError where the model itself fails on the example, so that the cut is not blamed."""
    try:
        with in_mode(model, training=False), torch.no_grad():
            model(example)
    except Exception as error:  # whatever its forward raises
        first_line = (str(error).splitlines() or [""])[0]
        raise ConfigError(
            f"{type(model).__name__} cannot take {tuple(example.shape)}: {first_line!r}; use another resolution"
        ) from error


def _first_trained(nodes: Nodes, trained: Collection[str]) -> int:
    """Return the index of the first node that uses a trained layer or parameter."""
    for index, node in enumerate(nodes):
        if _trains(node, trained):
            return index
    raise ConfigError(
        f"no trained layer in the network's data flow; asked for: {', '.join(sorted(trained)) or 'none'}"
    )


def _trains(node: fx.Node, trained: Collection[str]) -> bool:
    target = str(node.target)
    return node.op in {"call_module", "get_attr"} and any(
        _within(name, target) or _within(target, name) for name in trained
    )


def _weighs(node: fx.Node, model: nn.Module) -> bool:
    """Return whether the node is a layer with a weight of two or more dimensions, so no batch norm."""
    if node.op != "call_module":
        return False
    return any(p.dim() > 1 for p in model.get_submodule(str(node.target)).parameters())


def _within(name: str, container: str) -> bool:
    return name == container or name.startswith(f"{container}.")


def _links(nodes: Nodes, model: nn.Module, batch: int) -> list[int]:
    """Return the indices where later nodes need only one float tensor, with a row for each sample."""
    order = {node: index for index, node in enumerate(nodes)}
    last_use = [max((order.get(user, len(nodes)) for user in node.users), default=-1) for node in nodes]
    found = []
    for index, node in enumerate(nodes):
        open_values = [i for i in range(index + 1) if last_use[i] > index and nodes[i].op != "get_attr"]
        if open_values == [index] and _is_rows(node, batch) and not _overwritten(node, model):
            found.append(index)
    return found


def _is_rows(node: fx.Node, batch: int) -> bool:
    shape, dtype = node.meta.get("size", ((), torch.int64))
    return bool(dtype.is_floating_point and shape[:1] == (batch,))


def _overwritten(node: fx.Node, model: nn.Module) -> bool:
    """Return whether a user of the value writes into it: features that are kept must not change."""
    return any(overwrites(user, model) for user in node.users)


def overwrites(node: fx.Node, model: nn.Module) -> bool:
    """Return whether a node of a model's graph writes into its inputs."""
    if node.op == "call_module":
        return bool(getattr(model.get_submodule(str(node.target)), "inplace", False))
    name = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", "")
    if node.kwargs.get("inplace") or name in {"iadd", "isub", "imul", "itruediv"}:
        return True
    return node.op == "call_method" and name.endswith("_") and not name.endswith("__")


def _bytes(node: fx.Node) -> int:
    shape, dtype = node.meta["size"]
    return int(shape.numel() * dtype.itemsize)


def _trunk_graph(nodes: Nodes) -> fx.Graph:
    graph, copies = fx.Graph(), dict[fx.Node, fx.Node]()
    for node in nodes:
        copies[node] = graph.node_copy(node, copies.__getitem__)
    graph.output(copies[nodes[-1]])
    return graph


def _name_pools_(tail: fx.GraphModule) -> None:
    """Turn global average pools that are function calls into modules, so that compress_ can replace them."""
    for node in tail.graph.nodes:
        if is_pool_call(node):
            name = f"_pool_{node.name}"
            tail.add_submodule(name, nn.AdaptiveAvgPool2d(1))
            node.op, node.target, node.args, node.kwargs = (
                "call_module",
                name,
                (node.args or (node.kwargs["input"],))[:1],
                {},
            )
    tail.recompile()


def _part_graph(nodes: Nodes, start: int, end: int) -> fx.Graph:
    """Return the graph from the value of one node to that of a later one."""
    graph, inside = fx.Graph(), nodes[start + 1 : end + 1]
    copies = {nodes[start]: graph.placeholder("features")}
    constants = [
        node for node in nodes[:start] if node.op == "get_attr" and any(u in inside for u in node.users)
    ]
    for node in (*constants, *inside):
        copies[node] = graph.node_copy(node, copies.__getitem__)
    graph.output(copies[nodes[end]])
    return graph


def _tail_graph(nodes: Nodes, at: int) -> fx.Graph:
    graph = fx.Graph()
    copies = {nodes[at]: graph.placeholder("features")}
    constants = [
        node for node in nodes[:at] if node.op == "get_attr" and any(u in nodes[at:] for u in node.users)
    ]
    for node in (*constants, *nodes[at + 1 :]):
        copies[node] = graph.node_copy(node, copies.__getitem__)
    return graph
