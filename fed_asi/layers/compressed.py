"""What the compressed classes of layers with a weight share: their forward, and the checks of their input."""

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
    """Return the layer's output, or that of its last fused module unless a hook observes a tensor in between.

    Whenever autograd records, in training and in eval mode, only what the method asks for is kept. Otherwise the layer
    is the plain one: it changes and keeps nothing.
    batched_dim: dimensions of a batched input; an input with one dimension less is a single sample.
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
    if state.quick and batched_dim == 4 and not state.method.keeps_whole:
        given = (_channels_last(x), *given[1:])
    go_along_(state, x.device)
    follow_(module, state)
    precision = _autocast_dtype(x)
    if precision is not None:  # as torch casts for this layer; all that follows uses one precision
        given = tuple(t if t is None else t.to(precision) for t in given)
        with torch.autocast(x.device.type, enabled=False):
            return _batched(given, operation, state, fused, batched_dim)
    return _batched(given, operation, state, fused, batched_dim)


def _channels_last(x: Tensor) -> Tensor:
    """Return x: (N, C, H, W) with its channels last in memory, in which the CPU takes less time; others as they are.

    A method that keeps the input itself keeps the tensor that other layers share, so it gets no copy.
    """
    return x.contiguous(memory_format=torch.channels_last) if x.dim() == 4 and x.is_cpu else x


def _autocast_dtype(x: Tensor) -> torch.dtype | None:
    """Return the dtype that autocast asks for; None outside autocast, and for float64, which it leaves unchanged."""
    kind = x.device.type
    if x.dtype is torch.float64 or not torch.amp.is_autocast_available(kind):
        return None
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else None


# torch.compile leaves compressed layers out: a graph cannot hold what they keep between steps.
_run_eagerly = outside_graphs(_run)


def _affine(module: nn.Module | None) -> tuple[Tensor | None, Tensor | None]:
    """Return (weight, bias) of a layer or norm; None for each that it lacks."""
    if module is None:
        return None, None
    own = module._parameters  # quicker than attribute access through nn.Module
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
    """Raise UnsupportedLayerError for an input that is not floating-point."""
    if not x.is_floating_point():
        raise UnsupportedLayerError(
            f"{state.name}: an input of {x.dtype} cannot be trained on; convert it to a floating dtype"
        )


def applied(function: type[torch.autograd.Function], *arguments: object) -> Tensor:
    """Return function.apply(*arguments), typed as a tensor."""
    return cast(Tensor, function.apply(*arguments))  # type: ignore[no-untyped-call]


class SpatialMeanFunction(torch.autograd.Function):
    """The spatial mean, (N, C, *S) to (N, C, 1, ...); its gradient is an expanded view."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        """Return the mean."""
        ctx.shape = x.shape
        return x.mean(dim=list(range(2, x.dim())), keepdim=True)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Tensor:
        """Return g / (number of pixels), expanded over the pixels without a copy."""
        pixels = ctx.shape[2:].numel()
        spread: Tensor = (g / pixels).expand(ctx.shape)
        return spread


class WeightKind(LayerKind):
    """A kind of layer with a weight: all that does not depend on its geometry.

    channel_dim: the channel dimension of its input and output, in its own order. published: whether the papers count
    its input.
    """

    channel_dim: ClassVar[int] = 1
    published: ClassVar[bool] = True

    def unsupported(self, module: nn.Module, method: Method) -> str | None:
        """Return why `method` cannot keep the input, or None; ranks that no input of this layer allows are refused."""
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
        """Return the slice of the weight that these input channels use; for a depthwise convolution, their filters.

        For layers under a method that chooses channels; such methods support no other layers.
        """
        traits, weight = self.traits(module), cast(Tensor, module.weight)
        if traits.groups == 1:
            return Slice(1, channels)
        each = len(weight) // traits.groups
        return Slice(0, (channels.unsqueeze(1) * each + torch.arange(each, device=channels.device)).flatten())

    def channel_energies(self, module: nn.Module, gradient: Tensor) -> Tensor:
        """Return ||dW||^2 per input channel: (C,), float64; zeros where dW cannot be divided by channel."""
        traits, squares = self.traits(module), gradient.double().square()
        if traits.transposed or traits.groups not in (1, traits.channels):
            return squares.new_zeros(traits.channels)
        if traits.groups == 1:
            return squares.transpose(0, 1).flatten(1).sum(1)
        return squares.view(traits.channels, -1).sum(1)

    def thin_gradient(self, module: nn.Module, method: Method) -> bool:
        """Return whether dW of one micro-batch is always a product of two thin matrices."""
        return method.trains_weight and method.thin_gradient(self.traits(module))

    @abstractmethod
    def traits(self, module: nn.Module) -> Traits:
        """Return the traits that decide which methods can keep the layer's input."""

    @abstractmethod
    def size(self, module: nn.Module, shape: Sequence[int]) -> LayerSize:
        """Return the sizes of a call on an input of `shape`, in the layer's own order."""

    @abstractmethod
    def weight_gradient(self, module: nn.Module, x: Tensor, g: Tensor) -> Tensor:
        """Return dW of the plain layer for an input x: (N, C, *S) and g in the layer's own order."""

    def gradient_from_factors(self, module: nn.Module, kept: Kept, g: Tensor) -> Tensor | None:
        """Return dW of the input that a Tucker form stands for, straight from core and factors.

        None where it takes no less work than restoring the input. g: in the layer's own order.
        """
        return None

    def canonical(
        self, module: nn.Module, method: Method, shape: Sequence[int]
    ) -> tuple[Method, tuple[int, ...], tuple[int, ...]]:
        """Return the method with ranks in (B, C, *S) order, the dims of what it keeps, and the output dims."""
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
        """Return the bytes of the kept input and the packed mask, for one micro-batch of `input_shape`."""
        if pooled or method.needs_pool:
            input_shape = (*input_shape[:2], *[1] * (len(input_shape) - 2))
        method, dims, out = self.canonical(module, method, input_shape)
        mask = masks.packed_bytes(torch.Size(out).numel()) if fusing.clamp_of(fused) is not None else 0
        return (method.kept_bytes(dims, dtype) if method.trains_weight else 0) + mask


def weight_kind_of(module: nn.Module) -> WeightKind | None:
    """Return the kind of a layer with a weight; None for any other module."""
    kind = kind_of(module)
    return kind if isinstance(kind, WeightKind) else None
