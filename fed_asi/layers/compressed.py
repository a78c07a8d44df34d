"""What the compressed classes of layers with a weight share: their forward, and what they refuse."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar, cast

import torch
from torch import Tensor, nn

from fed_asi.errors import UnsupportedLayerError
from fed_asi.layers import fused as fusing
from fed_asi.layers import masks
from fed_asi.layers.base import LayerKind, LayerState, follow_, go_along_, is_hooked, kind_of, state_of
from fed_asi.layers.function import Call, LayerFunction
from fed_asi.layers.operation import Operation
from fed_asi.layers.slices import Slice
from fed_asi.methods import LayerSize, Method, Traits
from fed_asi.methods.forms import Kept
from fed_asi.torch_private import outside_graphs

Given = tuple[Tensor | None, ...]  # input, weight and bias, gamma and beta of a fused norm


def run(module: nn.Module, x: Tensor, operation: Operation, batched_dim: int) -> Tensor:
    """Return the layer's output, that of its fused modules unless somebody looks in between.

    Whenever autograd records, in training and in eval mode, only what the method says is kept. Otherwise this is
    the plain layer: nothing is changed, and nothing of ours is kept.
    batched_dim: dimensions of an input that has a batch; one less is a single sample.
    """
    if torch.compiler.is_compiling():
        return _run_eagerly(module, x, operation, batched_dim)
    return _run(module, x, operation, batched_dim)


def _run(module: nn.Module, x: Tensor, operation: Operation, batched_dim: int) -> Tensor:
    state = state_of(module)
    if state is None:
        raise UnsupportedLayerError(f"{type(module).__name__} has lost its state; compress the model again")
    joined = bool(state.fused) or state.pooled
    state.apart = joined and (is_hooked(module, inputs_too=False) or any(map(is_hooked, state.watched)))
    fused = () if state.apart else state.fused
    given: Given = (x, *_affine(module), *_affine(fusing.norm_of(fused)))
    if not (torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in given)):
        return fusing.plain(fused, state.original.forward(module, x))
    check_input(x, state)
    go_along_(state, x.device)
    follow_(module, state)
    precision = _autocast_dtype(x)
    if precision is not None:  # as torch does for this layer; inside there is one precision alone
        given = tuple(t if t is None else t.to(precision) for t in given)
        with torch.autocast(x.device.type, enabled=False):
            return _batched(given, operation, state, fused, batched_dim)
    return _batched(given, operation, state, fused, batched_dim)


def _autocast_dtype(x: Tensor) -> torch.dtype | None:
    """Return the precision that autocast asks for; None outside it, and for float64, which it leaves alone."""
    kind = x.device.type
    if x.dtype is torch.float64 or not torch.amp.is_autocast_available(kind):
        return None
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else None


# torch.compile goes round a compressed layer: what it keeps between steps is not for a graph.
_run_eagerly = outside_graphs(_run)


def _affine(module: nn.Module | None) -> tuple[Tensor | None, Tensor | None]:
    """Return (weight, bias) of a layer or norm, None where there is none."""
    if module is None:
        return None, None
    own = module._parameters  # what nn.Module looks up attributes in, and slowly
    if "weight" in own and "bias" in own:
        return own["weight"], own["bias"]
    return cast("Tensor | None", module.weight), cast("Tensor | None", module.bias)


def _batched(
    given: Given, operation: Operation, state: LayerState, fused: tuple[nn.Module, ...], batched_dim: int
) -> Tensor:
    x = cast(Tensor, given[0])
    if x.dim() == batched_dim - 1:
        return _apply(x.unsqueeze(0), given[1:], operation, state, fused).squeeze(0)
    return _apply(x, given[1:], operation, state, fused)


def _apply(
    x: Tensor, parameters: Given, operation: Operation, state: LayerState, fused: tuple[nn.Module, ...]
) -> Tensor:
    if not state.pooled or state.apart:
        return applied(LayerFunction, x, *parameters, Call.of(operation, state, x, fused))
    mean = applied(SpatialMeanFunction, x)
    y = applied(LayerFunction, mean, *parameters, Call.of(operation, state, mean, fused))
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
        weight = module._parameters.get("weight")
        if weight is None:
            return (
                "its weight is not a plain parameter (pruned, normalised, parametrised): as in plain PyTorch"
            )
        if not weight.is_floating_point():
            dtype = weight.dtype
            return f"a weight of {dtype} cannot be trained; convert the layer to a floating dtype"
        return method.unsupported(self.traits(module))

    def slice_of(self, module: nn.Module, channels: Tensor) -> Slice:
        """Return where the weight of these input channels is; of a depthwise convolution, the filters they go into.

        For layers under a method that chooses channels, which others do not support.
        """
        traits, weight = self.traits(module), cast(Tensor, module.weight)
        if traits.groups == 1:
            return Slice(1, channels)
        each = len(weight) // traits.groups
        return Slice(0, (channels.unsqueeze(1) * each + torch.arange(each, device=channels.device)).flatten())

    def channel_energies(self, module: nn.Module, gradient: Tensor) -> Tensor:
        """Return ||dW||^2 of each input channel: (C,), float64; zeros where no part of the weight is one channel's."""
        traits, squares = self.traits(module), gradient.double().square()
        if traits.transposed or traits.groups not in (1, traits.channels):
            return squares.new_zeros(traits.channels)
        if traits.groups == 1:
            return squares.transpose(0, 1).flatten(1).sum(1)
        return squares.view(traits.channels, -1).sum(1)

    def thin_gradient(self, module: nn.Module, method: Method) -> bool:
        """Return whether dW of one micro-batch is sure to come as a product of two thin matrices."""
        return method.trains_weight and method.thin_gradient(self.traits(module))

    @abstractmethod
    def traits(self, module: nn.Module) -> Traits:
        """Return what decides which methods can keep the layer's input."""

    @abstractmethod
    def size(self, module: nn.Module, shape: Sequence[int]) -> LayerSize:
        """Return the sizes of a call on an input of `shape`, in the layer's own order."""

    @abstractmethod
    def weight_gradient(self, module: nn.Module, x: Tensor, g: Tensor) -> Tensor:
        """Return dW of the plain layer for an input x: (N, C, *S) and g in the layer's own order."""

    def gradient_from_factors(self, module: nn.Module, kept: Kept, g: Tensor) -> Tensor | None:
        """Return dW of what a Tucker form stands for, straight from core and factors.

        None where multiplying the form out is no more work. g: in the layer's own order.
        """
        return None

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
