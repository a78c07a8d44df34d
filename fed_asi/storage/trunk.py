"""A frozen trunk as a device stores it: in float16, or in eight bits with ranges found on calibration images.

In eight bits everything between image and features is integer arithmetic, so features are the same to the bit on
every machine with the same trunk, ranges and images. Ranges are found layer after layer in the 8-bit trunk itself, so
each layer sees inputs that are already rounded.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import torch
from torch import Tensor, fx, nn

from fed_asi.compression.cut import overwrites
from fed_asi.compression.graph import ThreadTracer
from fed_asi.errors import ConfigError, UnsupportedLayerError
from fed_asi.memory.stored import Format, format_of
from fed_asi.storage.float16 import float16_trunk
from fed_asi.storage.grid import LEVELS, Grid, grid_of
from fed_asi.storage.int8_layers import Int8Layer, ToFloat32, ToInt8
from fed_asi.storage.kinds import Step, ends_a_grid, function_of, step_of

AT_ONCE: Final = 16  # images in a batch of the calibration
UNIT: Final = Grid(1.0, 0, LEVELS)

Ranges = Mapping[str, tuple[float, float]]
RangeOf = Callable[[fx.Node, Callable[..., Tensor], Sequence[fx.Node]], tuple[float, float]]


def problems(trunk: fx.GraphModule) -> list[str]:
    """Return why a trunk cannot be stored in eight bits, one line a layer; empty if it can.

    trunk: as returned by `cut.folded`.
    """
    trunk = _opened(trunk)
    found = _read_after_written(trunk)
    for node in trunk.graph.nodes:
        if node.op not in {"placeholder", "output"}:
            step = step_of(node, _module(trunk, node))
            if isinstance(step, str):
                found.append(f"{_name(node)}: {step}")
    return found


def _read_after_written(trunk: fx.GraphModule) -> list[str]:
    """Return the nodes that read a tensor after an earlier layer overwrote it: in eight bits nothing is overwritten."""
    written, found = dict[fx.Node, fx.Node](), []
    for node in trunk.graph.nodes:
        for before in node.all_input_nodes:
            if before in written:
                found.append(f"{_name(node)}: it reads what {_name(written[before])} has written into")
        if node.all_input_nodes and overwrites(node, trunk):
            written[node.all_input_nodes[0]] = node
    return found


def calibrated(trunk: fx.GraphModule, images: Tensor) -> dict[str, tuple[float, float]]:
    """Return the ranges of a trunk in eight bits on images, (N, 3, H, W) as the trunk takes them, by node.

    Raises UnsupportedLayerError for a trunk that has no such form, ConfigError where a range is not finite.
    """
    trunk = _opened(trunk)
    seen = _Seen(trunk, images)
    _converted(trunk, seen.range_of, seen.note)
    return seen.ranges


def stored_trunk(trunk: fx.GraphModule, form: Format, ranges: Ranges | None = None) -> fx.GraphModule:
    """Return a trunk that computes as on a device that stores it in a format; images and features are float32.

    trunk: as returned by `cut.folded`; it is not changed, and returned itself for float32. ranges: for int8, from
    `calibrated`.
    Raises UnsupportedLayerError for a trunk that has no such form, ConfigError for ranges of another trunk.
    """
    if format_of(form) == "float32":
        return trunk
    if form == "float16":
        return float16_trunk(trunk)

    def given(
        node: fx.Node, _numbers: Callable[..., Tensor], _inputs: Sequence[fx.Node]
    ) -> tuple[float, float]:
        if ranges is None or node.name not in ranges:
            raise ConfigError(f"storage: no range is known of {node.name}; calibrate this trunk first")
        low, high = ranges[node.name]
        return low, high

    made = _converted(_opened(trunk), given, lambda *_: None)
    return made.to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


@dataclass(slots=True)
class _Seen:
    """Calibration state: the value of every node on the images, as long as another node needs it."""

    trunk: fx.GraphModule
    images: Tensor
    ranges: dict[str, tuple[float, float]] = field(default_factory=dict)
    values: dict[fx.Node, list[Tensor]] = field(default_factory=dict)
    left: dict[fx.Node, int] = field(default_factory=dict)

    def inputs(self, nodes: Sequence[fx.Node]) -> list[tuple[Tensor, ...]]:
        """Return the values of nodes, a batch of images after another."""
        if not nodes:
            return [(batch,) for batch in torch.split(self.images, AT_ONCE)]
        values = [self.values[node] for node in nodes]
        return [tuple(one.float() for one in batch) for batch in zip(*values, strict=True)]

    def range_of(
        self, node: fx.Node, numbers: Callable[..., Tensor], inputs: Sequence[fx.Node]
    ) -> tuple[float, float]:
        """Return the smallest and the largest value of a node."""
        ends = [torch.aminmax(numbers(*batch)) for batch in self.inputs(inputs)]
        low, high = float(min(one.min for one in ends)), float(max(one.max for one in ends))
        if not -torch.inf < low <= high < torch.inf:
            raise ConfigError(
                f"storage: {_name(node)} gives numbers on the public images that are not finite"
            )
        self.ranges[node.name] = low, high
        return low, high

    def note(self, node: fx.Node, layer: Callable[..., Tensor], inputs: Sequence[fx.Node]) -> None:
        """Keep the values of a node, in two bytes a number, and drop those that no later node needs."""
        self.values[node] = [layer(*batch).to(torch.int16) for batch in self.inputs(inputs)]
        self.left[node] = len(node.users)
        for before in inputs:
            self.left[before] -= 1
            if self.left[before] == 0:
                del self.values[before]


def _opened(trunk: fx.GraphModule) -> fx.GraphModule:
    """Return the trunk with its blocks expanded into its graph, where they can be traced; nothing is copied.

    A cut keeps blocks whole if they depend on `training`; a trunk is always in eval mode.
    """
    try:
        return fx.GraphModule(trunk, ThreadTracer().trace(trunk), type(trunk).__name__)
    # A forward may raise anything when it is traced. Its blocks then stay whole, and `problems` names them.
    except Exception:
        return trunk


def _converted(
    trunk: fx.GraphModule,
    range_of: RangeOf,
    note: Callable[[fx.Node, Callable[..., Tensor], Sequence[fx.Node]], None],
) -> fx.GraphModule:
    """Return the trunk in eight bits. range_of: gives the range of a node. note: called with every new layer."""
    if found := problems(trunk):
        raise UnsupportedLayerError(f"the trunk cannot be stored in 8 bits: {'; '.join(found)}; use float16")
    making = _Making(trunk, range_of, note)
    with torch.no_grad():
        for node in trunk.graph.nodes:
            making.go(node)
    return fx.GraphModule(making.modules, making.graph, "Int8Trunk")


@dataclass(slots=True)
class _Making:
    """A trunk in eight bits in the making: its graph and modules; of every node of the first, node and grid there."""

    trunk: fx.GraphModule
    range_of: RangeOf
    note: Callable[[fx.Node, Callable[..., Tensor], Sequence[fx.Node]], None]
    graph: fx.Graph = field(default_factory=fx.Graph)
    modules: dict[str, nn.Module] = field(default_factory=dict)
    nodes: dict[fx.Node, fx.Node] = field(default_factory=dict)
    grids: dict[fx.Node, Grid] = field(default_factory=dict)

    def go(self, node: fx.Node) -> None:
        """Convert one node, unless an earlier node has absorbed it."""
        if node in self.nodes:
            return
        if node.op == "placeholder":
            self._image(node)
        elif node.op == "output":
            (last,) = node.all_input_nodes
            self.graph.output(self._call("to_float32", ToFloat32(self.grids[last]), [self.nodes[last]]))
        else:
            step = step_of(node, _module(self.trunk, node))
            if isinstance(step, str):  # reported by `problems`
                raise UnsupportedLayerError(f"{_name(node)}: {step}")
            self._layer(node, step)

    def _image(self, node: fx.Node) -> None:
        image = self.graph.placeholder(node.name)
        grid = grid_of(*self.range_of(node, lambda x: x, ()))
        layer = ToInt8(grid)
        self.nodes[node], self.grids[node] = self._call(f"{node.name}_to_int8", layer, [image]), grid
        self.note(node, layer, ())

    def _layer(self, node: fx.Node, step: Step) -> None:
        inputs = _inputs(node)
        befores = [self.grids[one] for one in inputs]
        if step.make is None:
            self.nodes[node] = self.graph.node_copy(node, self.nodes.__getitem__)
            self.grids[node] = befores[0]
            function = function_of(node, _module(self.trunk, node))
            if node.op == "call_module":
                self.modules[str(node.target)] = function
            self.note(node, function, inputs)
            return
        after = None if step.same_grid else self._clipped_by(node)
        last = after or node
        grid = befores[0]
        if not step.same_grid:
            grid = grid_of(*self.range_of(last, self._numbers(step.make(befores, UNIT), after), inputs))
        layer = step.make(befores, grid)
        self.nodes[last] = self._call(last.name, layer, [self.nodes[one] for one in inputs])
        self.grids[last] = grid
        self.note(last, layer, inputs)

    def _clipped_by(self, node: fx.Node) -> fx.Node | None:
        """Return the activation that is the only reader of a node and is absorbed into its layer."""
        users = list(node.users)
        alone = len(users) == 1 and len(users[0].all_input_nodes) == 1
        return users[0] if alone and ends_a_grid(users[0], _module(self.trunk, users[0])) else None

    def _numbers(self, layer: Int8Layer, after: fx.Node | None) -> Callable[..., Tensor]:
        """Return the function for a layer's output with its activation, before any rounding."""
        if after is None:
            return layer.numbers
        activation = function_of(after, _module(self.trunk, after))
        return lambda *inputs: activation(layer.numbers(*inputs))

    def _call(self, name: str, layer: nn.Module, inputs: Sequence[fx.Node]) -> fx.Node:
        self.modules[name] = layer
        return self.graph.call_module(name, tuple(inputs))


def _inputs(node: fx.Node) -> list[fx.Node]:
    """Return the nodes that a node reads; one that it reads twice appears twice."""
    found: list[fx.Node] = []
    fx.map_arg((node.args, node.kwargs), found.append)
    return found


def _module(trunk: fx.GraphModule, node: fx.Node) -> nn.Module | None:
    return trunk.get_submodule(str(node.target)) if node.op == "call_module" else None


def _name(node: fx.Node) -> str:
    return str(node.target) if node.op == "call_module" else node.name
