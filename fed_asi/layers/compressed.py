"""What the compressed classes of layers with a weight share: their forward, and what they refuse."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar, cast

import torch
from torch import Tensor, nn
from torch._compile import _disable_dynamo

from fed_asi.errors import UnsupportedLayerError
from fed_asi.layers import fused as fusing
from fed_asi.layers import masks
from fed_asi.layers.base import LayerKind, LayerState, follow_, kind_of, state_of
from fed_asi.layers.function import Call, LayerFunction, Operation
from fed_asi.methods import LayerSize, Method, Traits


def run(module: nn.Module, x: Tensor, operation: Operation, batched_dim: int) -> Tensor:
    """Return the layer's output, its fused modules included.

    Under grad and in training mode only what the method says is kept. Otherwise, in eval mode or
    under no_grad, this is the plain layer: nothing is changed, and nothing of ours is kept.
    batched_dim: dimensions of an input that has a batch; one less is a single sample.
    """
    if torch.compiler.is_compiling():
        return _run_eagerly(module, x, operation, batched_dim)
    return _run(module, x, operation, batched_dim)


def _run(module: nn.Module, x: Tensor, operation: Operation, batched_dim: int) -> Tensor:
    state = state_of(module)
    if state is None:
        raise UnsupportedLayerError(f"{type(module).__name__} has lost its state; compress the model again")
    norm = fusing.norm_of(state.fused)
    given = (x, *_affine(module), *_affine(norm))
    trains = module.training and torch.is_grad_enabled()
    if not (trains and any(t is not None and t.requires_grad for t in given)):
        return fusing.plain(state.fused, state.original.forward(module, x))
    check_input(x, state)
    follow_(module, state)
    if x.dim() == batched_dim - 1:
        return _apply(x.unsqueeze(0), given[1:], operation, state).squeeze(0)
    return _apply(x, given[1:], operation, state)


# torch.compile goes round a compressed layer: what it keeps between steps is not for a graph.
# Unlike torch.compiler.disable this imports the compiler only when it is called.
_run_eagerly = _disable_dynamo(_run)


def _affine(module: nn.Module | None) -> tuple[Tensor | None, Tensor | None]:
    """Return (weight, bias) of a layer or norm, None where there is none."""
    if module is None:
        return None, None
    return cast("Tensor | None", module.weight), cast("Tensor | None", module.bias)


def _apply(
    x: Tensor, parameters: tuple[Tensor | None, ...], operation: Operation, state: LayerState
) -> Tensor:
    if not state.pooled:
        return applied(LayerFunction, x, *parameters, Call.of(operation, state, x))
    mean = applied(SpatialMeanFunction, x)
    y = applied(LayerFunction, mean, *parameters, Call.of(operation, state, mean))
    return y.expand(*y.shape[:2], *x.shape[2:])


def check_input(x: Tensor, state: LayerState) -> None:
    """Refuse integers and complex numbers, and micro-batches of no sample."""
    if not x.is_floating_point():
        raise UnsupportedLayerError(
            f"{state.name}: an input of {x.dtype} cannot be trained on; convert it to a floating dtype"
        )


def applied(function: type[torch.autograd.Function], *arguments: object) -> Tensor:
    """Return function.apply(*arguments), typed."""
    return cast(Tensor, function.apply(*arguments))  # type: ignore[no-untyped-call]


class SpatialMeanFunction(torch.autograd.Function):
    """The mean over space, (N, C, *S) to (N, C, 1, ...), whose gradient is an expanded view."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        """Return the mean."""
        ctx.shape = x.shape
        return x.mean(dim=list(range(2, x.dim())), keepdim=True)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Tensor:
        """Return g / (pixels), without a copy for each pixel."""
        pixels = ctx.shape[2:].numel()
        spread: Tensor = (g / pixels).expand(ctx.shape)
        return spread


class WeightKind(LayerKind):
    """A kind of layer with a weight: everything but its geometry.

    channel_dim: of its input and output in its own order. published: whether the papers count its input.
    """

    channel_dim: ClassVar[int] = 1
    published: ClassVar[bool] = True

    def unsupported(self, module: nn.Module, method: Method) -> str | None:
        """Return why, or None; ranks that no input of this layer allows are found here."""
        weight = module.weight
        if not (isinstance(weight, Tensor) and weight.is_floating_point()):
            dtype = getattr(weight, "dtype", type(weight).__name__)
            return f"a weight of {dtype} cannot be trained; convert the layer to a floating dtype"
        return method.unsupported(self.traits(module))

    @abstractmethod
    def traits(self, module: nn.Module) -> Traits:
        """Return what decides which methods can keep the layer's input."""

    @abstractmethod
    def size(self, module: nn.Module, shape: Sequence[int]) -> LayerSize:
        """Return the sizes of a call on an input of `shape`, in the layer's own order."""

    @abstractmethod
    def weight_gradient(self, module: nn.Module, x: Tensor, g: Tensor) -> Tensor:
        """Return dW of the plain layer for an input x: (N, C, *S) and g in the layer's own order."""

    def canonical(
        self, module: nn.Module, method: Method, shape: Sequence[int]
    ) -> tuple[Method, tuple[int, ...], tuple[int, ...]]:
        """Return the method with ranks in (B, C, *S) order, the dimensions of what it keeps, and the output's."""
        size = self.size(module, shape)
        return method.reordered(self.canonical_order), method.kept_dims(size.dims, size.out), size.out

    def saved_bytes(
        self,
        module: nn.Module,
        method: Method,
        input_shape: Sequence[int],
        dtype: torch.dtype = torch.float32,
        fused: Sequence[nn.Module] = (),
        pooled: bool = False,
    ) -> int:
        """Return the bytes of kept input and packed mask, for one micro-batch of `input_shape`."""
        if pooled or method.needs_pool:
            input_shape = (*input_shape[:2], *[1] * (len(input_shape) - 2))
        method, dims, out = self.canonical(module, method, input_shape)
        mask = masks.packed_bytes(torch.Size(out).numel()) if fusing.clamp_of(fused) is not None else 0
        return (method.kept_bytes(dims, dtype) if method.trains_weight else 0) + mask


def weight_kind_of(module: nn.Module) -> WeightKind | None:
    """Return the kind of a layer with a weight; None for any other module."""
    kind = kind_of(module)
    return kind if isinstance(kind, WeightKind) else None
