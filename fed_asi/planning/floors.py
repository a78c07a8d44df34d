"""The bytes that no form avoids (masks, pooled features, loss), measured on the compressed model."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fed_asi.compression.compress import compress_known_
from fed_asi.compression.graph import analyse
from fed_asi.layers import only_looks
from fed_asi.layers.copying import copied
from fed_asi.memory.meter import ActivationMeter
from fed_asi.methods import BiasOnly, Method, Vanilla

Loss = Callable[[Tensor, Tensor], Tensor]


_PROBES = (1, 2, 9)  # a bit mask that fills no whole bytes may be linear at 1, 2 and 8 samples, not at 9


def measured_floors(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    layers: Sequence[tuple[str, bool]],
    micro_batches: Sequence[int],
    loss: Loss = F.cross_entropy,
    done: Callable[[], None] = lambda: None,
) -> dict[int, tuple[int, ...]]:
    """Return the bytes saved besides the inputs, for each micro-batch and each first trained layer i.

    layers: (name, has a bias) in forward order, the head last. x: (1, ...), y: (1,), an example.
    Bytes grow linearly with the micro-batch, unless a mask does not fill whole bytes. A probe of 9 samples detects
    that, and then each micro-batch is measured. done: called after each layer.
    """
    probe = _Probe(copied(model), x, y, loss)
    by_layer = []
    for layer in layers:
        by_layer.append(probe.floors(layer, layers[-1], micro_batches))
        done()
    return {b: tuple(sizes[b] for sizes in by_layer) for b in micro_batches}


class _Probe:
    """Measures a model's floor for one first trained layer at a time. Changes the model."""

    def __init__(self, model: nn.Module, x: Tensor, y: Tensor, loss: Loss) -> None:
        self._model, self._x, self._y, self._loss = model.train(), x, y, loss
        self._graph = analyse(self._model)

    def floors(
        self, first: tuple[str, bool], head: tuple[str, bool], micro_batches: Sequence[int]
    ) -> dict[int, int]:
        """Return the bytes per micro-batch with `first` and the head trained, without the kept inputs."""
        model = self._model
        forms: dict[str, Method] = {name: BiasOnly() if bias else Vanilla() for name, bias in (first, head)}
        compress_known_(model, self._graph, forms)
        meter = ActivationMeter(model)
        whole = [name for name, form in forms.items() if form.trains_weight]
        one, two, nine = (self._measure(model, meter, size, whole) for size in _PROBES)
        step = two - one
        if nine == one + 8 * step:
            return {b: one + (b - 1) * step for b in micro_batches}
        return {b: self._measure(model, meter, b, whole) for b in micro_batches}

    def _measure(self, model: nn.Module, meter: ActivationMeter, size: int, whole: Sequence[str]) -> int:
        inputs: dict[str, int] = {}
        modules = dict(model.named_modules())
        handles = [modules[n].register_forward_pre_hook(_recorder(n, inputs)) for n in whole]
        x, y = self._x.repeat(size, *[1] * (self._x.dim() - 1)), self._y.repeat(size)
        try:
            with torch.enable_grad(), meter:
                value = self._loss(model(x), y)
        finally:
            for handle in handles:
                handle.remove()
        del value
        return meter.saved_bytes - sum(inputs.values())


def _recorder(name: str, inputs: dict[str, int]) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
    def hook(_module: nn.Module, args: tuple[Tensor, ...]) -> None:
        inputs[name] = args[0].numel() * args[0].element_size()

    return only_looks(hook)
