"""One forward and backward on a calibration batch: every layer's input, gradient, and what each form costs.

The true weight gradient decides what a candidate is worth: the compressed layer itself is run on the recorded
input, and its weight gradient compared with the exact one.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fed_asi.errors import ConfigError, nearest
from fed_asi.floors import measured_floors
from fed_asi.graph import Graph, analyse
from fed_asi.profiles import Fingerprint, LayerProfile, Profile
from fed_asi.trials import (
    DEFAULT_METHODS,
    SUPPORTED,
    Record,
    Study,
    channel_axis,
    check_supported,
    is_pointwise,
    method_problems,
)

_CHUNK = 32


def profile(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    trained: Sequence[str] | None = None,
    micro_batches: Sequence[int] | None = None,
    methods: Sequence[str] = DEFAULT_METHODS,
    selection: str = "candidates",
    density: int = 10,
    seed: int = 0,
    loss: Callable[[Tensor, Tensor], Tensor] = F.cross_entropy,
) -> Profile:
    """Return what every form of keeping costs and is worth, layer by layer; the model is only read.

    x: (N, C, H, W), y: (N,), the calibration batch. trained: names of layers or of parameters, such as
    `tune_last_` returns; None for every convolution and linear layer. micro_batches: powers of two up to N
    when None.
    selection: "published" tries only the papers' epsilon grid. density: rank tuples tried per layer and
        micro-batch.
    Batch norms are frozen, as in training. Raises ConfigError and UnsupportedLayerError with names and
    reasons.
    """
    _check_arguments(x, y, methods, selection, micro_batches)
    sizes = tuple(sorted(set(micro_batches or _powers_of_two(len(x)))))
    copied = copy.deepcopy(model).eval().requires_grad_(False)
    graph = analyse(copied)
    names = _layer_names(model, graph, trained)
    records = record(copied, graph, names, x, y, loss)
    head = records[-1].name
    check_supported([item for item in records if item.name != head], methods)
    order = [name for name, _ in model.named_modules()]
    study = Study(sizes, tuple(methods), selection, density, seed)
    found = tuple(study.layer(item, order.index(item.name), item.name == head) for item in records)
    return Profile(
        fingerprint=Fingerprint.of(model, x),
        layers=found,
        floors=measured_floors(model, x[:1], y[:1], _with_bias(found), sizes, loss),
        num_examples=len(x),
        selection=selection,
    )


def _with_bias(layers: Sequence[LayerProfile]) -> list[tuple[str, bool]]:
    return [(layer.name, layer.bias_parameters > 0) for layer in layers]


def _check_arguments(
    x: Tensor, y: Tensor, methods: Sequence[str], selection: str, micro_batches: Sequence[int] | None
) -> None:
    problems = method_problems(methods)
    if selection not in ("candidates", "published"):
        problems.append(f'selection {selection!r} is neither "candidates" nor "published"')
    if len(x) == 0 or len(x) != len(y):
        problems.append(
            f"calibration needs as many labels as images, at least one; got {len(x)} and {len(y)}"
        )
    if any(size < 1 for size in micro_batches or ()):
        problems.append(f"micro-batches must be above 0, not {micro_batches}")
    if problems:
        raise ConfigError(problems)


def _powers_of_two(largest: int) -> list[int]:
    return [1 << power for power in range(largest.bit_length())]


def _layer_names(model: nn.Module, graph: Graph, trained: Sequence[str] | None) -> list[str]:
    """Return the layers to profile, from names of layers or of parameters."""
    modules = dict(model.named_modules())
    layers = [name for name, module in modules.items() if isinstance(module, SUPPORTED)]
    if trained is None:
        return [name for name in layers if name not in graph.repeated]
    owners = {norm: conv for conv, norm in graph.norms.items()}
    found: set[str] = set()
    for name in trained:
        module = name if name in modules else name.rpartition(".")[0]
        module = owners.get(module, module)
        if module not in modules:
            raise ConfigError(f"{name!r} is neither a layer nor a parameter; {nearest(name, layers)}")
        found.add(module)
    chosen = [name for name in layers if name in found]
    if not chosen:
        raise ConfigError(f"none of {', '.join(trained)} is a convolution or linear layer")
    return chosen


def record(
    model: nn.Module,
    graph: Graph,
    names: Sequence[str],
    x: Tensor,
    y: Tensor,
    loss: Callable[[Tensor, Tensor], Tensor] = F.cross_entropy,
) -> list[Record]:
    """Return inputs and output gradients of the named layers in the order of the forward pass.

    The gradients are those of the mean loss over the whole batch; layers before the first named one keep
    nothing.
    """
    modules = dict(model.named_modules())
    parts: dict[str, list[tuple[Tensor, Tensor, Tensor]]] = {name: [] for name in names}
    order: list[str] = []
    for start in range(0, len(x), _CHUNK):
        chunk = slice(start, start + _CHUNK)
        share = len(x[chunk]) / len(x)
        for name, part in _record_chunk(model, graph, names, x[chunk], y[chunk], loss, share).items():
            parts[name].append(part)
            if name not in order:
                order.append(name)
    return [_join(name, modules, graph, parts[name]) for name in order]


def _record_chunk(
    model: nn.Module,
    graph: Graph,
    names: Sequence[str],
    x: Tensor,
    y: Tensor,
    loss: Callable[[Tensor, Tensor], Tensor],
    share: float,
) -> dict[str, tuple[Tensor, Tensor, Tensor]]:
    modules = dict(model.named_modules())
    inputs: dict[str, Tensor] = {}
    taps: dict[str, Tensor] = {}

    def tap(name: str) -> Callable[[nn.Module, tuple[Any, ...], Tensor], Tensor]:
        def hook(_module: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor:
            if name in parts_of:
                inputs[name] = args[0].detach().clone()
            taps[name] = output if output.requires_grad else output.detach().requires_grad_()
            return taps[name].clone()

        return hook

    parts_of = set(names)
    norms = {name: graph.norms[name] for name in names if name in graph.norms}
    handles = [modules[n].register_forward_hook(tap(n)) for n in dict.fromkeys([*names, *norms.values()])]
    try:
        with torch.enable_grad():
            value = loss(model(x), y) * share
    finally:
        for handle in handles:
            handle.remove()
    gradients = torch.autograd.grad(value, list(taps.values()), allow_unused=True)
    by_name = {
        n: torch.zeros_like(t) if g is None else g for (n, t), g in zip(taps.items(), gradients, strict=True)
    }
    return {n: (inputs[n], by_name[n], _bias_gradient(by_name[norms.get(n, n)], modules[n])) for n in inputs}


def _bias_gradient(g: Tensor, module: nn.Module) -> Tensor:
    """Return the sum of an output gradient over everything but its channels, (C',)."""
    return g.transpose(0, channel_axis(module, g)).flatten(1).sum(1)


def _join(
    name: str, modules: Mapping[str, nn.Module], graph: Graph, parts: Sequence[tuple[Tensor, Tensor, Tensor]]
) -> Record:
    xs, gs, biases = zip(*parts, strict=True)
    bias = torch.stack(biases).sum(0)
    trainable = name in graph.norms or getattr(modules[name], "bias", None) is not None
    x, g = torch.cat(xs), torch.cat(gs)
    whole_shape = tuple(x.shape[1:])
    pooled = name in graph.pooled and is_pointwise(modules[name])
    if pooled:
        x, g = _over_space(x, torch.mean), _over_space(g, torch.sum)
    parameters, scales = bias.numel() if trainable else 0, bias.numel() if name in graph.norms else 0
    return Record(name, modules[name], x, g, bias, parameters, whole_shape, pooled, scales)


def _over_space(x: Tensor, reduce: Callable[..., Tensor]) -> Tensor:
    """Return x: (N, C, *S) reduced to (N, C, 1, ...)."""
    return reduce(x, dim=tuple(range(2, x.dim())), keepdim=True)
