"""Say which layers train: `requires_grad` and nothing else."""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn

from fed_asi.compression.graph import Graph, analyse
from fed_asi.errors import ConfigError, nearest
from fed_asi.layers.classes import CONVOLUTIONS
from fed_asi.methods import Method


def tune_last_(model: nn.Module, n: int) -> list[str]:
    """Freeze all but the last `n` convolutions and return the names of the parameters still trained.

    As in the papers, everything that stands behind the first of them in module order is trained too: batch
    norm's gamma and beta, and the classifier. n = 0 trains the head alone: what stands behind the last
    convolution and its batch norm.
    Raises ConfigError when the network has fewer convolutions, or nothing behind the last one for n = 0.
    """
    named = [(name, module) for name, module in model.named_modules() if module._parameters]
    convolutions = [index for index, (_, module) in enumerate(named) if isinstance(module, CONVOLUTIONS)]
    if isinstance(n, bool) or not isinstance(n, int) or not 0 <= n <= len(convolutions):
        raise ConfigError(f"the network has {len(convolutions)} convolutions, so the last {n!r} cannot train")
    start = convolutions[len(convolutions) - n] if n else _behind_last(model, named, convolutions)
    model.requires_grad_(False)
    for _, module in named[start:]:
        for parameter in module.parameters(recurse=False):
            parameter.requires_grad_(True)
    trained = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    if not trained:
        raise ConfigError("the network has no parameters behind its last convolution, so no head to train")
    return trained


def _behind_last(model: nn.Module, named: list[tuple[str, nn.Module]], convolutions: list[int]) -> int:
    if not convolutions:
        return 0
    last = convolutions[-1]
    norm = analyse(model).norms.get(named[last][0])
    return next((i + 1 for i, (name, _) in enumerate(named) if name == norm), last + 1)


def tune_(model: nn.Module, layers: Mapping[str, Method], graph: Graph | None = None) -> list[str]:
    """Train exactly what `layers` asks for and return the names of the parameters trained.

    layers: module name -> method; a Frozen one trains nothing, BiasOnly the bias, all others the weight too.
        The batch norm behind a named convolution trains with it: gamma and beta, or beta alone.
    graph: what `analyse(model)` gave, when the caller has it.
    Raises ConfigError, before anything changes, for names that are not modules or have no such parameter.
    """
    graph = analyse(model) if graph is None else graph
    modules = dict(model.named_modules())
    trained: list[nn.Parameter] = []
    for name, method in layers.items():
        if name not in modules:
            raise ConfigError(f"no layer {name!r} in the network; {nearest(name, filter(None, modules))}")
        trained.extend(_asked_for(name, modules, method, graph))
    model.requires_grad_(False)
    for parameter in trained:
        parameter.requires_grad_(True)
    return [name for name, parameter in model.named_parameters() if parameter.requires_grad]


def _asked_for(
    name: str, modules: Mapping[str, nn.Module], method: Method, graph: Graph
) -> list[nn.Parameter]:
    """Return the parameters that training layer `name` by `method` means."""
    if not method.trains_bias:
        return []
    owners = [modules[name]] + ([modules[graph.norms[name]]] if name in graph.norms else [])
    keys = ("weight", "bias") if method.trains_weight else ("bias",)
    found = [p for owner in owners for key in keys if (p := owner._parameters.get(key)) is not None]
    if not found:
        what = "weight or bias" if method.trains_weight else "bias, nor a batch norm behind it"
        raise ConfigError(f"{name}: {type(modules[name]).__name__} has no {what}, so nothing can train")
    return found
