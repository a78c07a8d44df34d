"""Set which layers train, by `requires_grad` and nothing else."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from torch import nn

from fed_asi.compression.graph import Graph, analyse
from fed_asi.errors import ConfigError, nearest
from fed_asi.layers.classes import CONVOLUTIONS
from fed_asi.layers.compressed import weight_kind_of
from fed_asi.methods import Method
from fed_asi.units import shown


def tune_last_(model: nn.Module, n: int) -> list[str]:
    """Freeze all but the last `n` convolutions and return the names of the parameters that still train.

    As in the papers, everything after the first of them in module order trains too: the batch norms' gamma and beta,
    and the classifier. n = 0 trains the head alone: whatever follows the last convolution and its batch norm.
    Raises ConfigError when the network has fewer convolutions, or nothing after the last one for n = 0.
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
    trained = _trained(model)
    if not trained:
        raise ConfigError("the network has no parameters after its last convolution, so no head to train")
    return trained


def _behind_last(model: nn.Module, named: list[tuple[str, nn.Module]], convolutions: list[int]) -> int:
    if not convolutions:
        return 0
    last = convolutions[-1]
    norm = analyse(model).norms.get(named[last][0])
    return next((i + 1 for i, (name, _) in enumerate(named) if name == norm), last + 1)


def tune_(model: nn.Module, layers: Mapping[str, Method], graph: Graph | None = None) -> list[str]:
    """Train exactly what `layers` asks for and return the names of the trained parameters.

    layers: module name -> method. Frozen trains nothing, BiasOnly the bias, all others the weight too.
        The batch norm after a named convolution trains with it: gamma and beta, or beta alone.
    graph: the result of `analyse(model)`, if the caller has it.
    Raises ConfigError, before anything changes, for names that are not modules or have no such parameter.
    """
    graph = analyse(model) if graph is None else graph
    modules = dict(model.named_modules())
    trained: list[nn.Parameter] = []
    for name, method in layers.items():
        if name not in modules:
            raise ConfigError(f"no layer {name!r} in the network; {nearest(name, filter(None, modules))}")
        trained.extend(trained_by(name, modules, method, graph))
    model.requires_grad_(False)
    for parameter in trained:
        parameter.requires_grad_(True)
    return _trained(model)


def _trained(model: nn.Module) -> list[str]:
    """Return the names of the trained parameters; one that two layers share is named once for each."""
    return [name for name, p in model.named_parameters(remove_duplicate=False) if p.requires_grad]


def with_tied(model: nn.Module, names: Collection[str]) -> list[str]:
    """Return names of layers or parameters, followed by those of all parameters tied to one of theirs."""
    every = dict(model.named_parameters(remove_duplicate=False))
    if len(every) == len({id(p) for p in every.values()}):
        return list(names)
    inside = {id(p) for key, p in every.items() if any(key == n or key.startswith(f"{n}.") for n in names)}
    return [*names, *(key for key, p in every.items() if id(p) in inside and key not in names)]


def layers_named(model: nn.Module, names: Sequence[str]) -> list[str]:
    """Return the layers meant by names of layers, blocks or weights, in the network's order.

    A layer here has a compressed form and a weight to train: a convolution or linear layer. A block means all the
    layers inside it. A layer that shares a weight with one of them is included, as neither can train without the other.
    Raises ConfigError with every name that means no layer, and the nearest ones.
    """
    layers = {name: module for name, module in model.named_modules() if weight_kind_of(module) is not None}
    problems, found = list[str](), set[int]()
    for name in names:
        inside = _inside(model, name, layers)
        found.update(map(id, inside))
        if not inside:
            problems.append(_no_layer(model, name, layers))
    if problems:
        raise ConfigError(problems)
    weights = {
        id(p) for module in layers.values() if id(module) in found for p in module.parameters(recurse=False)
    }
    return [
        name
        for name, module in layers.items()
        if id(module) in found or any(id(p) in weights for p in module.parameters(recurse=False))
    ]


def _owner(model: nn.Module, name: str) -> nn.Module | None:
    """Return the module of that name, or the module that has the parameter of that name; None if there is neither."""
    modules = dict(model.named_modules(remove_duplicate=False))
    owner, _, key = name.rpartition(".")
    has = owner in modules and modules[owner]._parameters.get(key) is not None
    return modules[owner] if has else modules.get(name) if name else None


def _inside(model: nn.Module, name: str, layers: Mapping[str, nn.Module]) -> list[nn.Module]:
    """Return the layers that a name means: all layers inside a module, or the layer that has a parameter."""
    known, owner = {id(module) for module in layers.values()}, _owner(model, name)
    return [] if owner is None else [module for module in owner.modules() if id(module) in known]


def _no_layer(model: nn.Module, name: str, layers: Mapping[str, nn.Module]) -> str:
    owner = _owner(model, name)
    if owner is not None:
        return f"{name!r} is a {type(owner).__name__}, which holds no convolution or linear layer; name one, or a block"
    hint = nearest(name, [key for key, _ in model.named_modules() if key])
    return f"no layer or block {shown(name)}; " + (
        hint if "mean" in hint else f"such as {max(layers, key=[*layers].index, default='')}"
    )


def trained_by(
    name: str, modules: Mapping[str, nn.Module], method: Method, graph: Graph
) -> list[nn.Parameter]:
    """Return the parameters that train when layer `name` is trained by `method`: its own and its batch norm's.

    Raises ConfigError where the layer has none of them.
    """
    if not method.trains_bias:
        return []
    keys = ("weight", "bias") if method.trains_weight else ("bias",)
    owners = [(modules[name], keys)]
    if name in graph.norms:
        owners.append((modules[graph.norms[name]], keys if method.trains_scale else ("bias",)))
    found = [p for owner, own in owners for key in own if (p := owner._parameters.get(key)) is not None]
    if not found:
        what = "weight or bias" if method.trains_weight else "bias, nor a batch norm after it"
        raise ConfigError(f"{name}: {type(modules[name]).__name__} has no {what}, so nothing can train")
    return found
