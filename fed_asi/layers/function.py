"""The autograd function shared by all layers with a weight: what it keeps, and all gradients."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from fed_asi.errors import UnsupportedLayerError
from fed_asi.layers import masks
from fed_asi.layers.base import LayerState
from fed_asi.layers.clipping import Clip
from fed_asi.layers.constants import Constants
from fed_asi.layers.fused import (
    FOLDED,
    Clamp,
    clamp_of,
    dense,
    folded_weight,
    norm_of,
    own,
    physical,
    plain,
    scales,
    scales_again,
    shift_of,
)
from fed_asi.layers.gradient import WeightGradient
from fed_asi.layers.operation import Operation, WholeGradient
from fed_asi.methods.forms import Kept, SomeChannels, micro_batches


@dataclass(slots=True)
class Call:
    """What a forward pass needs besides tensors, and what it stores for the backward pass."""

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
    given: tuple[Tensor | None, ...] = ()  # weight, bias, gamma and beta, where a sink takes their gradients

    @classmethod
    def of(cls, operation: Operation, state: LayerState, x: Tensor, fused: Sequence[nn.Module]) -> Call:
        """Return the call of a layer on input x. fused: the modules that it also computes."""
        mean = state.mean.to(x) if state.method.centers and state.mean is not None else None
        return cls(operation, state, norm_of(fused), clamp_of(fused), Kept(), x.shape, x.dtype, mean)

    def trained(self, need: Sequence[bool]) -> list[tuple[Tensor, int]]:
        """Return the trained ones of (weight, bias, gamma, beta), each with its index. need: for x and these four."""
        every = zip(self.given, need[1:5], range(4), strict=True)
        return [(given, place) for given, needed, place in every if given is not None and needed]


class LayerFunction(torch.autograd.Function):
    """y = act(norm(op(x, W) + bias)); it keeps the method's form of x, and one bit per element of y."""

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
        need = ctx.needs_input_grad
        y = _output(job, x, weight, bias, gamma, beta, need)
        if job.clamp is not None:
            y = job.clamp.forward_(y)
        job.keeps = need[1] or need[3]
        if job.state.sink is not None:
            job.given = (weight, bias, gamma, beta)
            job.state.sink.see([given for given, _ in job.trained(need)])
        _check_trained(need, job.state)
        if job.keeps:
            job.kept = kept_of(x, job.operation, job.state)
        mask: tuple[Tensor, ...] = ()
        if job.clamp is not None and any(need):
            y, mask = _masked(y, job.clamp, whole=job.state.quick)
            job.masked, job.stride = True, y.stride()
        ctx.save_for_backward(weight, bias, gamma, *mask, *job.kept.tensors)
        job.kept.tensors = ()
        job.found = job.state.found
        ctx.job = job
        return own(y)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g: Tensor | None) -> tuple[Tensor | None, ...]:
        """Return the gradients of the arguments of forward; None for those that a sink has taken."""
        if g is None:
            return (None,) * 6
        job: Call = ctx.job
        weight, bias, gamma, *rest = ctx.saved_tensors
        if job.masked and job.clamp is not None:
            g = job.clamp.mask_gradient(g, rest.pop(0), job.stride)
        g = g.to(weight.dtype)
        job.kept.tensors, need = tuple(rest), ctx.needs_input_grad
        # Now the pending factors come from a training step.
        job.state.used = job.state.used or job.found == job.state.found
        sink = job.state.sink if job.given else None
        trained = [] if sink is None else job.trained(need)
        taken = sink is not None and sink.takes([given for given, _ in trained])
        parameters = (weight, bias, gamma)
        dx, dw, *others = _gradients(job, need, g, parameters, thin=taken, clip=job.state.clip)
        if sink is not None and taken:
            found = (dw, *others)
            parts = [(given, found[i]) for given, i in trained]
            sink.take_([(given, gradient) for given, gradient in parts if gradient is not None])
            return (dx, None, None, None, None, None)
        if dw is not None and dw.sparse and sink is not None and sink.holds(cast(Tensor, job.given[0]), dw):
            return (dx, None, *others, None)
        return (dx, None if dw is None else dw.whole(), *others, None)


def kept_of(x: Tensor, operation: Operation, state: LayerState) -> Kept:
    """Return x in the form that a layer's method keeps; new warm factors become pending.

    Raises UnsupportedLayerError for factors of a method that does not start from them: no step would commit them in
    time, and no round would keep them.
    """
    before = state.pending
    kept = operation.keep(x, state.method, state)
    if state.pending is not before:
        if state.pending is not None and not state.method.warm_start:
            what = type(state.method).__name__
            raise UnsupportedLayerError(
                f"{state.name}: {what} sets pending factors, but its warm_start is False, so no step would start from "
                "them; let warm_start return True, or leave pending as it is"
            )
        state.found += 1
        state.used = False
    state.published_bytes += kept.published_bytes
    return kept


Parameters = tuple[Tensor, Tensor | None, Tensor | None]  # weight, bias, gamma
Gradients = tuple[Tensor | None, WeightGradient | None, Tensor | None, Tensor | None, Tensor | None]


def _gradients(
    job: Call, need: Sequence[bool], g: Tensor, parameters: Parameters, *, thin: bool, clip: Clip | None
) -> Gradients:
    """Return the gradients of (x, W, bias, gamma, beta) for g = dy, already masked; None where not needed.

    clip: see LayerState.
    """
    operation, weight = job.operation, parameters[0]
    scale = None if job.norm is None else scales_again(job.norm, job.state.constants, parameters[2])[0]
    dx = dw = products = None
    own = g if clip is None or not any(need[1:]) else _clipped(job, need, g, parameters, clip)
    total = channel_sums(own, operation.channel_dim, job.state.constants) if any(need[2:]) else None
    if job.keeps:  # before dX, so that the restored input is freed before dX is allocated
        dw = _weight_gradient(job, own, weight, thin)
        products = dw.products(weight) if need[3] else None
    if need[0]:
        dx = _input_gradient(job, g, weight, scale).to(job.dtype)
    if dw is not None and scale is not None:
        dw.scale_(scale)  # after dX: a thin gradient may share memory with g
    if dw is not None and not thin and not dw.sparse and job.state.slice is None:
        dw = WholeGradient(operation, dw.whole())  # autograd needs all of it
    # What a centred weight leaves to the bias: W mu is folded into it.
    left = None if dw is None or total is None or job.mean is None else dw.respond(job.mean)
    dgamma = _gamma_gradient(job, parameters, products, total) if need[3] else None
    if total is None or scale is None:
        db = total if total is None or left is None else total - left
        return dx, dw if need[1] else None, db if need[2] else None, dgamma, None
    # Where beta is trained it takes this term: y = s W (x - mu) + beta', beta = beta' - s W mu.
    db = total * scale if need[2] else None
    db = db if db is None or left is None or need[4] else db - left
    dbeta = (total if left is None else total - left * scale) if need[4] else None
    return dx, dw if need[1] else None, db, dgamma, dbeta


def _clipped(job: Call, need: Sequence[bool], g: Tensor, parameters: Parameters, clip: Clip) -> Tensor:
    """Return g with each micro-batch's part scaled, so that the layer's own gradients of it are clipped together.

    They are linear in g. The gradient of the input is not clipped.
    """
    own, squares = (False, *need[1:]), []
    for rows, kept in micro_batches(job.kept, len(g), clip.micro_batch):
        one = replace(job, kept=kept)
        found = _gradients(one, own, g[rows], parameters, thin=False, clip=None)[1:]
        squares.append(torch.stack([_squared_norm(one) for one in found if one is not None]).sum())
    shares = clip.shares(torch.stack(squares), len(g))
    return g * shares.to(g.dtype).view(-1, *[1] * (g.dim() - 1))


def _squared_norm(gradient: Tensor | WeightGradient) -> Tensor:
    if isinstance(gradient, WeightGradient):
        return gradient.squared_norm()
    return cast(Tensor, torch.linalg.vector_norm(gradient)).square()


def _weight_gradient(job: Call, g: Tensor, weight: Tensor, thin: bool) -> WeightGradient:
    kept, part = job.kept, job.state.slice
    if isinstance(kept, SomeChannels) and part is not None:
        return job.operation.part_gradient(kept, g, weight, part, thin=thin, own=job.masked)
    return job.operation.gradient(kept, g, weight, thin=thin, own=job.masked)


def _gamma_gradient(
    job: Call, parameters: Parameters, products: Tensor | None, total: Tensor | None
) -> Tensor | None:
    """Return the gradient of gamma, from <dW, W> per output channel and the sums of g; the output is not kept."""
    weight, bias, gamma = parameters
    if job.norm is None or products is None or total is None:
        return None
    _, inverse = scales_again(job.norm, job.state.constants, gamma)
    running_mean = cast(Tensor, job.norm.running_mean)
    offset = -running_mean if bias is None else bias - running_mean
    if job.mean is not None:
        offset = offset + job.operation.respond(weight, job.mean)
    return inverse * torch.addcmul(products.to(offset.dtype), offset, total.to(offset.dtype))


def _input_gradient(job: Call, g: Tensor, weight: Tensor, scale: Tensor | None) -> Tensor:
    """Return dX; the scale is applied to the smaller one of g and the weight."""
    operation = job.operation
    if scale is None:
        return operation.input_gradient(g, weight, job.shape)
    if g.numel() < weight.numel():
        scaled = (g * _by_channel(scale, g, operation)).to(g.dtype)
        return operation.input_gradient(scaled, weight, job.shape)
    folded = None if job.state.constants is None else job.state.constants.newest(FOLDED)
    if folded is None:
        folded = operation.scale_outputs(weight, scale).to(g.dtype)
    return operation.input_gradient(g, folded, job.shape)


def _by_channel(values: Tensor, y: Tensor, operation: Operation) -> Tensor:
    """Return values: (C',) reshaped to broadcast over y."""
    return values.view(-1, *[1] * (y.dim() - 2)) if operation.channel_dim == 1 else values


def channel_sums(g: Tensor, channel_dim: int, constants: Constants | None = None) -> Tensor:
    """Return the sum of g over all dimensions but its channels: (C',); a matrix product where the layout allows."""
    last = g.movedim(channel_dim, -1)
    if last.is_contiguous():
        rows = last.reshape(-1, last.shape[-1])
        return (_ones(rows, constants) @ rows).view(-1)
    if g.is_contiguous():
        images = g.flatten(1)
        return (_ones(images, constants) @ images).view(g.shape[1], -1).sum(1)
    return g.sum(dim=[d for d in range(g.dim()) if d != channel_dim % g.dim()])


def _ones(rows: Tensor, constants: Constants | None) -> Tensor:
    """Return a tensor of ones: (1, len(rows))."""
    if constants is None:
        return rows.new_ones(1, rows.shape[0])
    return constants.of(f"{len(rows)} {rows.dtype} ones", (), partial(rows.new_ones, (1, len(rows))))


def _output(
    job: Call,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    gamma: Tensor | None,
    beta: Tensor | None,
    need: Sequence[bool],
) -> Tensor:
    """Return z with the frozen norm folded in: applied to the output where that is smaller, else to the weight."""
    operation, constants = job.operation, job.state.constants
    if job.norm is None:
        return operation.forward(x, weight, bias)
    if x.numel() // x.shape[operation.channel_dim] * weight.shape[0] < weight.numel():
        if constants is not None:
            scales(job.norm, constants, gamma, need[3])  # cached for the backward
            constants.forget(FOLDED)
        return plain((job.norm,), operation.forward(x, weight, bias))
    scale, _ = scales(job.norm, constants, gamma, need[3])
    shift = shift_of(job.norm, constants, bias, gamma, scale, need[2] or need[3])
    shift = shift if beta is None else shift + beta
    make = partial(operation.scale_outputs, weight, scale)
    folded = folded_weight(job.norm, constants, weight, gamma, make, need[1] or need[3])
    return operation.forward(x, folded.to(x.dtype), shift.to(x.dtype))


def _masked(y: Tensor, clamp: Clamp, *, whole: bool) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Return y, made dense, and its packed mask in the memory order of y. whole: pack it at once, whatever its size."""
    if not dense(y):
        y = y.contiguous()
    flat = physical(y)
    return y, (masks.pack(clamp.open(flat)) if whole else masks.pack_open(flat, clamp.open),)


def _check_trained(need: Sequence[bool], state: LayerState) -> None:
    """Raise UnsupportedLayerError for a trained parameter that the method would leave without a gradient."""
    if need[1] and not state.method.trains_weight:
        what = "weight"
    elif need[3] and not (state.method.trains_weight and state.method.trains_scale):
        what = "batch norm's gamma"
    else:
        return
    keeps = "some channels of the input" if state.method.trains_weight else "no input"
    raise UnsupportedLayerError(
        f"{state.name}: method {state.method.kind!r} keeps {keeps}, so the {what} would get no gradient; "
        "set its requires_grad to False or choose a method that keeps the input"
    )
