"""Make a network keep only what its plan says between forward and backward, in place and reversibly."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from torch import Tensor, nn

from fed_asi import layers
from fed_asi.compression.asked import PlanLike, asked_for
from fed_asi.compression.graph import Graph, analyse
from fed_asi.compression.report import CompressionReport
from fed_asi.compression.swapping import Calibrated, Swapping
from fed_asi.errors import UnsupportedLayerError
from fed_asi.methods import Method
from fed_asi.methods.bases import Bases

_TRAINED_BEFORE = "_asi_trained_before"


def compress_(
    model: nn.Module,
    spec: PlanLike | Method | Mapping[str, Method],
    *,
    seed: int = 0,
    micro_batch: int | None = None,
    means: Mapping[str, Sequence[float] | Tensor] | None = None,
    energies: Mapping[str, Sequence[float] | Tensor] | None = None,
    smooth_bits: int | None = None,
) -> CompressionReport:
    """Compress `model` in place and return what happened to every layer.

    spec: a method for every trained convolution (every trained Linear where no convolution is trained);
        or a plan, or layer name -> method, which also decide what is trained: exactly the layers named, with
        the batch norms after them. A compressed model is uncompressed first.
    seed: of the layers' random starts and dropout. micro_batch: larger batches are treated as independent
        micro-batches side by side. means: channel means for centered methods. energies: of the channels, for
        methods that choose some of them. A plan brings its own means and energies.
    smooth_bits: 8 or 4 to keep the slopes of Hardswish, SiLU, GELU and the like approximately; None keeps
        them exact, at the size of their input.
    Every batch norm of the model is fixed: it uses its running statistics in training mode too.
    Raises ConfigError and UnsupportedLayerError, with the layer's name, and leaves the model as it was.
    """
    uncompress_(model)
    return compress_known_(model, analyse(model), spec, seed, micro_batch, means, energies, smooth_bits)


def compress_known_(
    model: nn.Module,
    graph: Graph,
    spec: PlanLike | Method | Mapping[str, Method],
    seed: int = 0,
    micro_batch: int | None = None,
    means: Mapping[str, Sequence[float] | Tensor] | None = None,
    energies: Mapping[str, Sequence[float] | Tensor] | None = None,
    smooth_bits: int | None = None,
) -> CompressionReport:
    """Do what `compress_` does, given the graph that `analyse` returned: tracing it takes most of the time."""
    uncompress_(model)
    before = {name: p.requires_grad for name, p in model.named_parameters()}
    bases: Mapping[str, Bases] = {}
    if isinstance(spec, PlanLike):
        micro_batch = spec.micro_batch if micro_batch is None else micro_batch
        means = {**spec.means, **(means or {})}
        energies = {**getattr(spec, "energies", {}), **(energies or {})}
        bases = spec.bases
    model.__dict__[_TRAINED_BEFORE] = before
    try:
        found = Calibrated(means or {}, bases, energies or {})
        work = Swapping(model, graph, seed, micro_batch, found, smooth_bits)
        work.run(asked_for(model, graph, spec))
    except BaseException:
        uncompress_(model)
        raise
    trained = tuple(name for name, p in model.named_parameters() if p.requires_grad)
    return CompressionReport(tuple(work.lines), trained, seed, micro_batch, graph.reason)


def uncompress_(model: nn.Module) -> None:
    """Restore every layer's class, and the `requires_grad` that every parameter had before `compress_`."""
    for module in model.modules():
        layers.detach_(module)
    before: Mapping[str, bool] = model.__dict__.pop(_TRAINED_BEFORE, {})
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(before.get(name, parameter.requires_grad))


def check_gradients(model: nn.Module, moved: Collection[int] = ()) -> None:
    """Raise UnsupportedLayerError where a trained parameter has no gradient after the first backward pass.

    moved: ids of the parameters whose gradients were already applied and freed.
    """
    missing = [
        name
        for name, p in model.named_parameters()
        if p.requires_grad and p.grad is None and id(p) not in moved
    ]
    if missing:
        more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
        raise UnsupportedLayerError(
            f"trained, but without a gradient: {', '.join(missing[:3])}{more}; the forward does "
            "not use them, so freeze them or leave them out of the plan"
        )
