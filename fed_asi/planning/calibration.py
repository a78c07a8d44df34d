"""One forward and backward pass on a calibration batch: every layer's input and gradient, and what each form costs.

A candidate is judged by the true weight gradient: the compressed layer itself runs on the recorded input, and its
weight gradient is compared with the exact one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor, nn
from torch.nn import functional as F

from fed_asi.compression.graph import Graph, analyse
from fed_asi.errors import ConfigError, UnsupportedLayerError, nearest
from fed_asi.layers.compressed import weight_kind_of
from fed_asi.layers.copying import copied
from fed_asi.machine import one_thread
from fed_asi.methods import Vanilla
from fed_asi.methods.family import Asked, Family, families
from fed_asi.planning.floors import measured_floors
from fed_asi.planning.profile import LayerProfile, ModelFingerprint, Profile
from fed_asi.planning.recording import record
from fed_asi.planning.trials import Study, check_supported

Progress = Callable[[int, int], None]


@one_thread
def profile(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    trained: Sequence[str] | None = None,
    micro_batches: Sequence[int] | None = None,
    methods: Asked | Sequence[Asked] | None = None,
    selection: str = "candidates",
    density: int = 10,
    seed: int = 0,
    loss: Callable[[Tensor, Tensor], Tensor] = F.cross_entropy,
    centered: bool | None = True,
    grid: bool = False,
    progress: Progress | None = None,
) -> Profile:
    """Return a profile: what each form of each layer's input costs and preserves. The model is not changed.

    x: (N, C, H, W), y: (N,), the calibration batch. trained: names of layers or of parameters, such as
    `tune_last_` returns; None for every layer with a compressed form. micro_batches: by default the powers of two
    up to N. methods: what is tried, such as "asi" or HOSVD(0.7); None for what plans use by default.
    selection: "published" tries only the papers' epsilon grid. density: rank tuples tried per layer and
        micro-batch.
    centered: the value that plans will ask for; None serves plans of any kind and takes twice the time. grid: whether
        to try the papers' grid too, for plans with selection "published".
    progress: called with (steps done, steps in all), from 0 on.

    All computation runs on one thread, whatever torch's setting. Batch norms are frozen, as in training.
    Raises ConfigError and UnsupportedLayerError with names and reasons.
    """
    wanted = _checked(x, y, methods, selection, micro_batches)
    sizes = tuple(sorted(set(micro_batches or _powers_of_two(len(x)))))
    frozen = copied(model).eval().requires_grad_(False)
    graph = analyse(frozen)
    names = _layer_names(model, graph, trained)
    steps = _Steps(len(names) * (len(sizes) + 1), progress)
    records = record(frozen, graph, names, x, y, loss)
    head = records[-1].name
    check_supported([item for item in records if item.name != head], wanted)
    order = [name for name, _ in model.named_modules()]
    study = Study(sizes, wanted, selection, density, seed, grid, centered)
    found = tuple(
        study.layer(item, order.index(item.name), item.name == head, steps.done) for item in records
    )
    return Profile(
        fingerprint=ModelFingerprint.of(model, x),
        layers=found,
        floors=measured_floors(model, x[:1], y[:1], _with_bias(found), sizes, loss, steps.done),
        num_examples=len(x),
        selection=selection,
        centered=None if selection == "published" else centered,
        grid=grid or selection == "published",
    )


class _Steps:
    """Reports the progress of a calibration: a step for each layer and micro-batch, and one for each layer's floor."""

    def __init__(self, total: int, progress: Progress | None) -> None:
        self._total, self._progress, self._done = total, progress, -1
        self.done()

    def done(self) -> None:
        """Count one step."""
        self._done += 1
        if self._progress is not None:
            self._progress(self._done, self._total)


def _with_bias(layers: Sequence[LayerProfile]) -> list[tuple[str, bool]]:
    return [(layer.name, layer.bias_parameters > 0) for layer in layers]


def _checked(
    x: Tensor,
    y: Tensor,
    methods: Asked | Sequence[Asked] | None,
    selection: str,
    micro_batches: Sequence[int] | None,
) -> tuple[Family, ...]:
    """Return the families of forms to try. Raises ConfigError with everything that is wrong with the arguments."""
    problems: list[str] = []
    found: tuple[Family, ...] = ()
    try:
        found = families(methods)
    except ConfigError as error:
        problems += error.problems
    if selection not in ("candidates", "published"):
        problems.append(f'selection {selection!r} is neither "candidates" nor "published"')
    if len(x) == 0 or len(x) != len(y):
        problems.append(
            f"calibration needs at least one image, and a label for each; got {len(x)} and {len(y)}"
        )
    if any(size < 1 for size in micro_batches or ()):
        problems.append(f"micro-batches must be above 0, not {micro_batches}")
    if problems:
        raise ConfigError(problems)
    return found


def _refusal(module: nn.Module) -> str | None:
    """Return why a layer with a weight has no form at all; None for any other module."""
    kind = weight_kind_of(module)
    return None if kind is None else kind.unsupported(module, Vanilla())


def _powers_of_two(largest: int) -> list[int]:
    return [1 << power for power in range(largest.bit_length())]


def _layer_names(model: nn.Module, graph: Graph, trained: Sequence[str] | None) -> list[str]:
    """Return the layers to profile, from names of layers or of parameters."""
    modules = dict(model.named_modules())
    refused = {name: reason for name, module in modules.items() if (reason := _refusal(module))}
    layers = [name for name, module in modules.items() if weight_kind_of(module) is not None]
    if trained is None:
        return [name for name in layers if name not in graph.repeated and name not in refused]
    owners = {norm: conv for conv, norm in graph.norms.items()}
    found: set[str] = set()
    for name in trained:
        module = name if name in modules else name.rpartition(".")[0]
        module = owners.get(module, module)
        if module not in modules:
            raise ConfigError(f"{name!r} is neither a layer nor a parameter; {nearest(name, layers)}")
        found.add(module)
    chosen = [name for name in layers if name in found]
    for name in chosen:
        if name in refused:
            raise UnsupportedLayerError(f"{name}: {refused[name]}; make it plain, or leave the layer out")
    if not chosen:
        raise ConfigError(f"none of {', '.join(trained)} is a convolution or linear layer")
    return chosen
