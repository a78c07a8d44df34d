"""The one autograd function of every layer with a weight: what is kept, and every gradient."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, cast

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from fed_asi.errors import UnsupportedLayerError
from fed_asi.layers import masks
from fed_asi.layers.base import LayerState
from fed_asi.layers.fused import Clamp, clamp_of, dense, norm_of, norm_scale, own, physical, plain
from fed_asi.methods import Method
from fed_asi.methods.forms import Kept


class Operation(ABC):
    """A layer's linear map of x: (N, C, *S) to z: (N, C', *S'), and its gradients."""

    channel_dim: ClassVar[int] = 1

    @abstractmethod
    def forward(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """Return z."""

    @abstractmethod
    def input_gradient(self, g: Tensor, weight: Tensor, shape: torch.Size) -> Tensor:
        """Return dX: `shape` for g = dz."""

    @abstractmethod
    def weight_gradient(self, kept: Kept, g: Tensor, weight: Tensor) -> Tensor:
        """Return dW of the input that `kept` stands for, in weight's shape."""

    def scaled_gradient(
        self, kept: Kept, g: Tensor, weight: Tensor, scale: Tensor | None, products: bool
    ) -> tuple[Tensor, Tensor | None]:
        """Return (dW with its outputs multiplied by scale, <dW, W> for each output where asked)."""
        dw = self.weight_gradient(kept, g, weight)
        rows = self.row_products(dw, weight) if products else None
        return (dw if scale is None else self.scale_outputs(dw, scale)), rows

    @abstractmethod
    def scale_outputs(self, weight: Tensor, scale: Tensor) -> Tensor:
        """Return the weight with every output channel multiplied by scale: (C',)."""

    @abstractmethod
    def row_products(self, gradient: Tensor, weight: Tensor) -> Tensor:
        """Return <gradient, weight> for each output channel: (C',)."""

    @abstractmethod
    def respond(self, weight: Tensor, mean: Tensor) -> Tensor:
        """Return what the weight gives for an input that is mean: (C,) everywhere: (C',)."""

    def keep(self, x: Tensor, method: Method, state: LayerState) -> Kept:
        """Return x in the form `method` keeps."""
        return method.keep(x, state)


@dataclass(slots=True)
class Call:
    """What one forward pass needs besides tensors, and what it leaves for the backward."""

    operation: Operation
    state: LayerState
    norm: nn.Module | None
    clamp: Clamp | None
    kept: Kept
    shape: torch.Size
    dtype: torch.dtype
    mean: Tensor | None
    keeps: bool = False
    masked: bool = False
    stride: tuple[int, ...] = ()
    found: int = 0

    @classmethod
    def of(cls, operation: Operation, state: LayerState, x: Tensor, fused: Sequence[nn.Module]) -> Call:
        """Return the call of a layer on input x. fused: the modules it computes too."""
        mean = state.mean.to(x) if state.method.centers and state.mean is not None else None
        return cls(operation, state, norm_of(fused), clamp_of(fused), Kept(), x.shape, x.dtype, mean)


class LayerFunction(torch.autograd.Function):
    """y = act(norm(op(x, W) + bias)) that keeps the method's form of x and one bit an element of y."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        gamma: Tensor | None,
        beta: Tensor | None,
        job: Call,
    ) -> Tensor:
        """Return y; see the class."""
        y = _output(job, x, weight, bias, gamma, beta)
        if job.clamp is not None:
            y = job.clamp.forward_(y)
        job.keeps = ctx.needs_input_grad[1] or ctx.needs_input_grad[3]
        _check_trained(ctx.needs_input_grad, job.state)
        if job.keeps:
            before = job.state.found
            job.kept = job.operation.keep(x, job.state.method, job.state)
            job.state.used = job.state.used and job.state.found == before
            job.state.published_bytes += job.kept.published_bytes
        mask: tuple[Tensor, ...] = ()
        if job.clamp is not None and any(ctx.needs_input_grad):
            y, mask = _masked(y, job.clamp)
            job.masked, job.stride = True, y.stride()
        ctx.save_for_backward(weight, bias, gamma, *mask, *job.kept.tensors)
        job.kept.tensors = ()
        job.found = job.state.found
        ctx.job = job
        return own(y)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g: Tensor | None) -> tuple[Tensor | None, ...]:
        """Return the gradients of forward's arguments."""
        if g is None:
            return (None,) * 6
        job: Call = ctx.job
        weight, bias, gamma, *rest = ctx.saved_tensors
        if job.masked and job.clamp is not None:
            g = job.clamp.mask_gradient(g, rest.pop(0), job.stride)
        g = g.to(weight.dtype)
        job.kept.tensors = tuple(rest)
        job.state.used = (
            job.state.used or job.found == job.state.found
        )  # its factors are those of a training step
        return (*_gradients(job, ctx.needs_input_grad, g, (weight, bias, gamma)), None)


def _gradients(
    job: Call, need: Sequence[bool], g: Tensor, parameters: tuple[Tensor, Tensor | None, Tensor | None]
) -> tuple[Tensor | None, ...]:
    """Return the gradients for (x, W, bias, gamma, beta) at g = dy, already masked; None if not needed."""
    operation, norm = job.operation, job.norm
    weight, bias, gamma = parameters
    scale, inverse = (None, None) if norm is None else norm_scale(norm, gamma)
    dx = dw = db = dgamma = dbeta = products = None
    if need[0]:
        dx = _input_gradient(job, g, weight, scale).to(job.dtype)
    total = channel_sums(g, operation.channel_dim) if any(need[2:]) else None
    left = None  # what a centred weight leaves to the bias: W mu is folded into it
    if job.keeps:
        dw, products = operation.scaled_gradient(job.kept, g, weight, scale, need[3])
        if job.mean is not None and total is not None:
            left = operation.respond(dw, job.mean)
    if need[3] and norm is not None and products is not None and total is not None and inverse is not None:
        running_mean = cast(Tensor, norm.running_mean)
        offset = -running_mean if bias is None else bias - running_mean
        if job.mean is not None:
            offset = offset + operation.respond(weight, job.mean)
        dgamma = inverse * torch.addcmul(products.to(offset.dtype), offset, total.to(offset.dtype))
    if total is not None and scale is None:
        db = total if left is None else total - left
    elif total is not None and scale is not None:
        # beta takes it where beta is trained: y = s W (x - mu) + beta', beta = beta' - s W mu
        db = total * scale if need[2] else None
        db = db if db is None or left is None or need[4] else db - left
        dbeta = total if left is None else total - left * scale
    found = (dx, dw, db, dgamma, dbeta)
    return tuple(value if needed else None for value, needed in zip(found, need, strict=False))


def _input_gradient(job: Call, g: Tensor, weight: Tensor, scale: Tensor | None) -> Tensor:
    """Return dX; the scale goes onto the smaller of g and the weight."""
    operation = job.operation
    if scale is None:
        return operation.input_gradient(g, weight, job.shape)
    if g.numel() < weight.numel():
        scaled = (g * _by_channel(scale, g, operation)).to(g.dtype)
        return operation.input_gradient(scaled, weight, job.shape)
    return operation.input_gradient(g, operation.scale_outputs(weight, scale).to(g.dtype), job.shape)


def _by_channel(values: Tensor, y: Tensor, operation: Operation) -> Tensor:
    """Return values: (C',) shaped to be multiplied with y."""
    return values.view(-1, *[1] * (y.dim() - 2)) if operation.channel_dim == 1 else values


def channel_sums(g: Tensor, channel_dim: int) -> Tensor:
    """Return the sum of g over all but its channels: (C',), as one product where memory allows it."""
    last = g.movedim(channel_dim, -1)
    if last.is_contiguous():
        rows = last.reshape(-1, last.shape[-1])
        return (rows.new_ones(1, rows.shape[0]) @ rows).view(-1)
    if g.is_contiguous():
        images = g.flatten(1)
        return (images.new_ones(1, images.shape[0]) @ images).view(g.shape[1], -1).sum(1)
    return g.sum(dim=[d for d in range(g.dim()) if d != channel_dim % g.dim()])


def _output(
    job: Call, x: Tensor, weight: Tensor, bias: Tensor | None, gamma: Tensor | None, beta: Tensor | None
) -> Tensor:
    """Return z with the frozen norm folded in: into the output where that is smaller, else into the weight."""
    operation = job.operation
    if job.norm is None:
        return operation.forward(x, weight, bias)
    if x.numel() // x.shape[operation.channel_dim] * weight.shape[0] < weight.numel():
        return plain((job.norm,), operation.forward(x, weight, bias))
    scale, _ = norm_scale(job.norm, gamma)
    mean = cast(Tensor, job.norm.running_mean)
    shift = (-mean if bias is None else bias - mean) * scale
    shift = shift if beta is None else shift + beta
    return operation.forward(x, operation.scale_outputs(weight, scale).to(x.dtype), shift.to(x.dtype))


def _masked(y: Tensor, clamp: Clamp) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Return y, dense, and its packed mask in the order of y's memory."""
    if not dense(y):
        y = y.contiguous()
    return y, (masks.pack(physical(clamp.open(y))),)


def _check_trained(need: Sequence[bool], state: LayerState) -> None:
    """Refuse to leave a parameter without its gradient in silence."""
    if need[1] and not state.method.trains_weight:
        what = "weight"
    elif need[3] and not state.method.trains_weight:
        what = "batch norm's gamma"
    else:
        return
    raise UnsupportedLayerError(
        f"{state.name}: method {state.method.kind!r} keeps no input, so the {what} would get no gradient; "
        "set its requires_grad to False or choose a method that keeps the input"
    )
