"""The work of a network on a device, counted from its shapes: multiply-accumulates, elements, bytes and calls.

`network_of` runs a traced network once, on one image, and notes its sizes. From then on, work is arithmetic: of a
forward pass, of the whole step of one micro-batch under any methods, of an optimizer step. The multiply-accumulates
equal those of `costs.cost` exactly. The rest is what kernels do besides, with one kernel call for each step of a
formula.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from math import prod
from typing import Any, NamedTuple

import torch
from torch import Tensor, fx, nn

from fed_asi.layers import original_class
from fed_asi.layers.classes import BATCH_NORMS
from fed_asi.layers.compressed import WeightKind, weight_kind_of
from fed_asi.methods import Frozen, LayerSize, Method

FLOAT_BYTES = 4
Shape = tuple[int, ...]
_VIEWS = (
    "Identity",
    "Flatten",
    "Unflatten",
    "Dropout",
    "view",
    "reshape",
    "flatten",
    "permute",
    "transpose",
    "size",
)
_CLAMPS = ("ReLU", "ReLU6", "Hardtanh", "LeakyReLU", "relu", "relu_", "relu6", "hardtanh", "leaky_relu")
# Of a norm folded into its layer: the scale and shift; gamma's gradient.
_NORM_CALLS, _NORM_GRADIENT_CALLS = 5, 8
# Passes over the weight of a kernel with several taps: read, written in another layout, read again, and the result.
_LAYOUTS = 4
_SCALING, _GRADIENT_SCALING = 2, 5  # passes over a weight: s W; s dW and <dW, W>
_BIAS_CALLS = 2
_MASK_CALLS, _MASK_PASSES = 4, 2  # one bit per element: computed and packed; unpacked and applied
# Gradient checkpointing: to drop and restore the tensors of a segment; there is one segment per trained layer.
_SEGMENT_CALLS = 50
_LOSS_CALLS = 8
_UPDATE_CALLS, _UPDATE_PASSES = 6, 4  # per parameter: norm, clipping, decay and step


class Work(NamedTuple):
    """What a device does: multiply-accumulates by kind, elements handled one by one, bytes moved, kernel calls."""

    dense_macs: int = 0
    depthwise_macs: int = 0
    elements: int = 0
    moved_bytes: int = 0
    calls: int = 0

    @property
    def macs(self) -> int:
        """Multiply-accumulates of both kinds, dense and depthwise."""
        return self.dense_macs + self.depthwise_macs

    def times(self, count: int) -> Work:
        """Return `count` times this work."""
        return Work(*(count * one for one in self))


def total(works: Iterable[Work]) -> Work:
    """Return the sum of several works."""
    return Work(*map(sum, zip(Work(), *works, strict=True)))


@dataclass(frozen=True, slots=True)
class Part:
    """A step of the data flow without a weight, by its sizes for one image.

    after: the layers before it; if one of them trains, a gradient passes through here. clamps: whether one bit per
    element of it is kept.
    """

    after: frozenset[str]
    elements: int
    moved_bytes: int
    clamps: bool = False

    def forward(self, batch: int, keeps: bool) -> Work:
        """Return the work of the forward pass of `batch` images. keeps: whether a backward pass follows."""
        passes = 1 + (_MASK_PASSES if keeps and self.clamps else 0)
        calls = 1 + (_MASK_CALLS if keeps and self.clamps else 0)
        return self._passes(batch, passes, calls)

    def backward(self, batch: int) -> Work:
        """Return the work of the backward pass of `batch` images."""
        return self._passes(
            batch, 1 + (_MASK_PASSES if self.clamps else 0), 1 + (_MASK_CALLS if self.clamps else 0)
        )

    def _passes(self, batch: int, passes: int, calls: int) -> Work:
        return Work(0, 0, batch * passes * self.elements, batch * passes * self.moved_bytes, calls)


@dataclass(frozen=True, slots=True)
class Layer:
    """A call of a layer with a weight, by its sizes for one image.

    name: the qualified name. after: see `Part`. weights, biases: shapes of what is trained if the whole layer or its
    bias is, including a batch norm after it. normed: whether there is such a norm.
    """

    name: str
    after: frozenset[str]
    size: LayerSize
    kind: WeightKind
    pooled: bool
    weight: int
    weights: tuple[Shape, ...]
    biases: tuple[Shape, ...]
    normed: bool

    def forward(self, batch: int, method: Method | None) -> Work:
        """Return the work of the forward pass of `batch` images. method: None if no gradient passes through."""
        size = self.sized(batch, method)
        # Without a gradient the weight is kept in the kernel's layout, written once.
        passes = 1 if method is None else self._layouts(size)
        done = self._product(size, size.forward_macs, 1 + (_NORM_CALLS if self.normed else 0), passes)
        return self._scaled(done, _SCALING)

    def keeping(self, batch: int, method: Method) -> Work:
        """Return the work of bringing the input into the form that the method keeps."""
        if not method.trains_weight:
            return Work()
        size, ranks = self.sized(batch, method), self.ranks(batch, method)
        calls, elements = self._own(method).keeping(size, ranks)
        numel = prod(size.dims)
        centred = int(method.centers)
        moved = FLOAT_BYTES * (2 * numel if calls or centred else 0)
        return Work(method.overhead_macs(size, ranks), 0, elements + centred * numel, moved, calls + centred)

    def backward(self, batch: int, method: Method, gradient: bool) -> Work:
        """Return the work of the backward pass of `batch` images. gradient: whether dX is needed."""
        size, ranks = self.sized(batch, method), self.ranks(batch, method)
        own = self._own(method)
        done = (
            [self._scaled(self._product(size, own.dx_macs(size), 1 + self.normed), _SCALING)]
            if gradient
            else []
        )
        if method.trains_weight:
            calls, elements = own.restoring(size, ranks)
            product = self._product(size, own.dw_macs(size, ranks), 1 + calls)
            normed = _NORM_GRADIENT_CALLS if self.normed else 0
            product = product._replace(elements=elements, calls=product.calls + normed)
            done.append(self._scaled(product, _GRADIENT_SCALING))
        if method.trains_bias:
            numel = prod(size.out)
            done.append(Work(0, 0, numel, FLOAT_BYTES * numel, _BIAS_CALLS))
        return total(done)

    def trained(self, method: Method) -> tuple[Shape, ...]:
        """Return the shapes of the trained tensors of the layer and its norm."""
        weights = self.weights if method.trains_weight else ()
        if method.picks_channels:
            weights = (self._part(weights[0], method), *(weights[1:] if method.trains_scale else ()))
        return weights + (self.biases if method.trains_weight or method.trains_bias else ())

    def _part(self, weight: Shape, method: Method) -> Shape:
        """Return the shape of the slice of a weight that belongs to the channels which a method picks."""
        channels = self.size.dims[1]
        kept = method.trained_parameters(channels, 0, channels)
        dim = 1 if weight[1] == channels else 0  # a depthwise weight has its channels first
        return (*weight[:dim], kept, *weight[dim + 1 :])

    def sized(self, batch: int, method: Method | None) -> LayerSize:
        """Return the sizes for `batch` images; those of the input's spatial mean where pooling first is exact.

        method: None if no gradient passes through; the layer then runs as in plain PyTorch.
        """
        dims, out = (batch, *self.size.dims[1:]), (batch, *self.size.out[1:])
        if self.pooled and method is not None and method.pools_first:
            dims, out = (*dims[:2], *[1] * (len(dims) - 2)), (*out[:2], *[1] * (len(out) - 2))
        return replace(self.size, dims=dims, out=out)

    def ranks(self, batch: int, method: Method) -> tuple[int, ...]:
        """Return a rank per mode, (B, C, *S); where the data decide, the upper bounds: the sizes of the modes."""
        return self._own(method).mode_ranks or self.sized(batch, method).dims

    def _own(self, method: Method) -> Method:
        found = method.pooled() if self.pooled and method.pools_first else method
        return found.reordered(self.kind.canonical_order)

    def _scaled(self, done: Work, passes: int) -> Work:
        """Return the work plus the passes over the weight that fold a following norm into it."""
        moved = FLOAT_BYTES * passes * self.weight if self.normed else 0
        return done._replace(moved_bytes=done.moved_bytes + moved)

    def _layouts(self, size: LayerSize) -> int:
        return _LAYOUTS if size.taps > 1 else 1

    def _product(self, size: LayerSize, macs: int, calls: int, passes: int | None = None) -> Work:
        passes = self._layouts(size) if passes is None else passes
        moved = FLOAT_BYTES * (prod(size.dims) + prod(size.out) + passes * self.weight)
        if size.groups > 1:
            return Work(0, macs, 0, moved, calls)
        return Work(macs, 0, 0, moved, calls)


@dataclass(frozen=True, slots=True)
class Network:
    """A network's data flow, by its sizes for one image. uncounted: layers whose multiplications are not counted."""

    parts: tuple[Part | Layer, ...]
    uncounted: tuple[str, ...] = ()

    @property
    def layers(self) -> tuple[Layer, ...]:
        """The calls of layers with a weight, in order."""
        return tuple(part for part in self.parts if isinstance(part, Layer))

    def forward(self, batch: int) -> Work:
        """Return the work of a forward pass of `batch` images that keeps nothing."""
        return total(
            part.forward(batch, None) if isinstance(part, Layer) else part.forward(batch, keeps=False)
            for part in self.parts
        )

    def step(self, batch: int, methods: Mapping[str, Method], *, twice: bool = False) -> Work:
        """Return the work of forward and backward of a micro-batch of `batch` images; unnamed layers are frozen.

        twice: whether everything a gradient passes through is computed again in the backward pass.
        """
        trained = {name for name, method in methods.items() if method.trains_bias}
        done = [Work(calls=_LOSS_CALLS)]
        for part in self.parts:
            gradient = not trained.isdisjoint(part.after)
            if isinstance(part, Layer):
                done += _of_layer(part, batch, methods.get(part.name, Frozen()), gradient, twice)
            else:
                forward = part.forward(batch, keeps=gradient)
                done += [forward, part.backward(batch)] if gradient else [forward]
                done += [forward] if gradient and twice else []
        return total(done)

    def update(self, methods: Mapping[str, Method]) -> Work:
        """Return the work of one optimizer step."""
        elements = self.trained_elements(methods)
        count = sum(2 * method.trains_bias for method in methods.values())
        passes = _UPDATE_PASSES * elements
        return Work(0, 0, passes, 2 * FLOAT_BYTES * passes, _UPDATE_CALLS * count)

    def trained_elements(self, methods: Mapping[str, Method]) -> int:
        """Return the number of trained elements of weights and biases; a layer called several times counts once."""
        return sum(prod(shape) for shape in self.trained_shapes(methods))

    def trained_shapes(self, methods: Mapping[str, Method]) -> list[Shape]:
        """Return the shapes of the trained tensors; a layer called several times counts once."""
        known = {layer.name: layer for layer in self.layers}
        return [shape for name, m in methods.items() if name in known for shape in known[name].trained(m)]


def _of_layer(layer: Layer, batch: int, method: Method, gradient: bool, twice: bool) -> list[Work]:
    if not (gradient or method.trains_bias):
        return [layer.forward(batch, None)]
    forward = layer.forward(batch, method)
    done = [forward, layer.keeping(batch, method), layer.backward(batch, method, gradient)]
    again = forward._replace(calls=forward.calls + _SEGMENT_CALLS * method.trains_bias)
    return [*done, again] if twice else done


def network_of(network: fx.GraphModule, example: Tensor, pooled: Collection[str] = ()) -> Network:
    """Return the sizes of a traced network, found by running it once.

    example: (1, ...), one image or a tensor of its shape. pooled: layers whose output only feeds a global average pool.
    """
    noting = _Noting(network, frozenset(pooled))
    with torch.no_grad():
        noting.run(example)
    counted = {layer.name for layer in noting.layers()}
    weighted = [
        name
        for name, module in network.named_modules()
        if any(p is not None and p.dim() > 1 for p in module._parameters.values())
    ]
    return Network(tuple(noting.parts), tuple(name for name in weighted if name not in counted))


class _Noting(fx.Interpreter):
    """Runs a network and notes the sizes of each node, and the layers before it."""

    def __init__(self, network: fx.GraphModule, pooled: frozenset[str]) -> None:
        super().__init__(network)
        self.parts: list[Part | Layer] = []
        self._pooled = pooled
        self._after: dict[fx.Node, frozenset[str]] = {}

    def layers(self) -> list[Layer]:
        return [part for part in self.parts if isinstance(part, Layer)]

    def run_node(self, n: fx.Node) -> Any:
        inputs = [self.env[one] for one in n.all_input_nodes if isinstance(self.env.get(one), Tensor)]
        shape = inputs[0].shape if inputs else torch.Size()
        read = sum(one.numel() for one in inputs)
        found = super().run_node(n)
        before = frozenset[str]().union(*(self._after.get(one, frozenset()) for one in n.all_input_nodes))
        self._after[n] = before
        if n.op in {"placeholder", "get_attr", "output"} or not isinstance(found, Tensor):
            return found
        module = self.fetch_attr(str(n.target)) if n.op == "call_module" else None
        kind = None if module is None else weight_kind_of(module)
        if module is not None and kind is not None and inputs:
            self._after[n] = before | {str(n.target)}
            self.parts.append(self._layer(n, module, kind, shape, before))
        elif not self._is_free(n, module):
            name = original_class(module).__name__ if module is not None else _called(n)
            moved = FLOAT_BYTES * (read + found.numel())
            self.parts.append(Part(before, max(read, found.numel()), moved, name in _CLAMPS))
        return found

    def _layer(
        self, n: fx.Node, module: nn.Module, kind: WeightKind, shape: torch.Size, before: frozenset[str]
    ) -> Layer:
        norm = next((one for user in n.users if (one := self._norm(user)) is not None), None)
        owners = [module] if norm is None else [module, norm]
        shapes = {
            key: tuple(tuple(p.shape) for one in owners if (p := one._parameters.get(key)) is not None)
            for key in ("weight", "bias")
        }
        weight = module._parameters.get("weight")
        size = kind.size(module, shape)
        return Layer(
            str(n.target), before, size, kind, self._is_pooled(n, module, kind),
            0 if weight is None else weight.numel(), shapes["weight"], shapes["bias"], norm is not None,
        )  # fmt: skip

    def _is_pooled(self, n: fx.Node, module: nn.Module, kind: WeightKind) -> bool:
        return str(n.target) in self._pooled and kind.traits(module).poolable

    def _norm(self, n: fx.Node) -> nn.Module | None:
        module = self.fetch_attr(str(n.target)) if n.op == "call_module" else None
        return module if isinstance(module, BATCH_NORMS) else None

    def _is_free(self, n: fx.Node, module: nn.Module | None) -> bool:
        """Return whether a node does no work: a view, or a norm that is folded into the layer before it."""
        if self._norm(n) is not None:
            (before,) = n.all_input_nodes
            return (
                before.op == "call_module" and weight_kind_of(self.fetch_attr(str(before.target))) is not None
            )
        return (original_class(module).__name__ if module is not None else _called(n)) in _VIEWS


def _called(n: fx.Node) -> str:
    return n.target if isinstance(n.target, str) else getattr(n.target, "__name__", "")
