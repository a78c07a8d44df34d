"""Swaps the layers of a network for their compressed classes, one after another, with a report line for each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from fed_asi import layers, seeds
from fed_asi.compression.asked import Asked, is_weighted, refusal, trains
from fed_asi.compression.graph import Graph
from fed_asi.compression.report import Line, describe
from fed_asi.errors import ConfigError, UnsupportedLayerError
from fed_asi.gpus import device_of
from fed_asi.layers.absorbed import absorb_, can_absorb
from fed_asi.layers.classes import BATCH_NORM, BATCH_NORMS
from fed_asi.layers.compressed import weight_kind_of
from fed_asi.layers.fused import reason_not_fusable
from fed_asi.layers.norm import fix_
from fed_asi.methods import BiasOnly, Frozen, Method, Quantized
from fed_asi.methods.bases import Bases, factors_of


@dataclass(frozen=True, slots=True)
class Calibrated:
    """What calibration found, by layer: channel means, fixed factors, centred gradient energy of each channel."""

    means: Mapping[str, Any]
    bases: Mapping[str, Bases]
    energies: Mapping[str, Any]


class Swapping:
    """One compress_ in progress: it swaps the layers and writes a report line for each."""

    def __init__(
        self,
        model: nn.Module,
        graph: Graph,
        seed: int,
        micro_batch: int | None,
        calibrated: Calibrated,
        smooth_bits: int | None,
    ) -> None:
        self.modules = dict(model.named_modules())
        self.graph, self.seed, self.micro_batch = graph, seed, micro_batch
        self.calibrated = calibrated
        self.weights = Counter(id(m._parameters.get("weight")) for m in self.modules.values())
        self.smooth = None if smooth_bits is None else Quantized(smooth_bits)
        self.lines: list[Line] = []
        self.absorbed: set[str] = set()

    def run(self, asked: Asked) -> None:
        """Swap every layer that has a compressed form, from the first trained one on."""
        self._check_names(asked)
        order = self._order()
        first = min((order[n] for n, m in self.modules.items() if trains(m)), default=0)
        for name, module in sorted(self.modules.items(), key=lambda item: order[item[0]]):
            if name in self.absorbed or (not list(module._parameters) and list(module.children())):
                continue
            # A module that is called more than once may also be called after the first trained layer.
            early = order[name] < first and name not in self.graph.repeated
            if early and not isinstance(module, BATCH_NORM) and not _draws(module):
                self._line(name, module, "left", reason="before the first trained layer, so it keeps nothing")
            else:
                self._swap(name, module, asked)

    def _check_names(self, asked: Asked) -> None:
        for name, method in asked.methods.items():
            module = self.modules[name]
            reason = refusal(name, module, method, self.graph)
            if asked.strict and reason is not None and is_weighted(module):
                raise UnsupportedLayerError(f"{name}: {reason}")

    def _order(self) -> dict[str, int]:
        """Return every module's place in the forward; modules inside a traced leaf have the leaf's."""
        place = {name: i for i, name in enumerate(self.graph.order)}
        found: dict[str, int] = {}
        for name in self.modules:
            parent = name.rpartition(".")[0]
            found[name] = place.get(name, found.get(parent, -1) if name else -1)
        return found

    def _swap(self, name: str, module: nn.Module, asked: Asked) -> None:
        if is_weighted(module):
            method = asked.methods.get(name) or (BiasOnly() if trains(module, "bias") else Frozen())
            self._swap_weighted(name, module, method)
            return
        kind = layers.kind_of(module)
        reason = None if kind is None else kind.unsupported(module, self.smooth or Frozen())
        if kind is None and fix_(module, name):
            self._line(
                name, module, "left", reason="its statistics are fixed; it keeps what plain PyTorch keeps"
            )
            return
        if kind is None or reason is not None:
            if type(module).forward is not nn.Module.forward:
                self._line(name, module, "left", reason=reason or "no compressed form; as in plain PyTorch")
            return
        self._attach(name, module, self.smooth or Frozen())

    def _swap_weighted(self, name: str, module: nn.Module, method: Method) -> None:
        reason = refusal(name, module, method, self.graph)
        if reason is not None:
            self._line(name, module, "left", reason=reason)
            return
        fused = self._fused(name, method)
        pooled = name in self.graph.pooled and _pools_first(module, method)
        self._attach(name, module, method.pooled() if pooled else method, fused, pooled)
        owner = cast(layers.LayerState, layers.state_of(module))
        for member in fused:
            absorb_(self.modules[member], member, owner)
            self.absorbed.add(member)
            self._line(member, self.modules[member], "fused", into=name)

    def _fused(self, name: str, method: Method) -> tuple[str, ...]:
        """Return the following modules that the layer can compute itself without keeping more."""
        chain = self.graph.fusable.get(name, ())
        while chain:
            members = [self.modules[member] for member in chain]
            norm = members[0] if isinstance(members[0], BATCH_NORMS) else None
            needs_input = norm is not None and trains(norm, "weight") and not method.trains_weight
            if needs_input:
                return ()
            if all(map(can_absorb, members)) and reason_not_fusable(members) is None:
                return chain
            chain = chain[:-1]
        return ()

    def _attach(
        self,
        name: str,
        module: nn.Module,
        method: Method,
        fused: tuple[str, ...] = (),
        pooled: bool = False,
    ) -> None:
        kind = layers.kind_of(module)
        make = layers.LayerState if kind is None else kind.state
        seed = seeds.derive(self.seed, "layer", name)
        channels = self._channels(name, module, method, seed)
        bases = self.calibrated.bases
        state = make(
            name=name,
            method=method,
            original=type(module),
            seed=seed,
            micro_batch=self.micro_batch,
            fused=tuple(self.modules[member] for member in fused),
            pooled=pooled,
            watched=tuple(
                self.modules[one] for one in (*fused, *(self.graph.pooled[name] if pooled else ()))
            ),
            mean=self._mean(name, module, method, channels),
            factors=factors_of(bases[name]) if name in bases else None,
            channels=channels,
        )
        layers.attach_(module, state)
        weighted = weight_kind_of(module)
        if channels is not None and weighted is not None:
            state.slice = weighted.slice_of(module, channels)
        layers.go_along_(state, device_of(module))
        self._line(name, module, "compressed", method=method)

    def _channels(self, name: str, module: nn.Module, method: Method, seed: int) -> Tensor | None:
        """Return the channels of a layer's input that a method keeps; None for all."""
        kind = weight_kind_of(module)
        if not method.picks_channels or kind is None:
            return None
        if self.weights[id(module._parameters["weight"])] > 1:
            raise UnsupportedLayerError(
                f"{name}: {method.kind!r} trains a part of its weight, and another layer shares it; use another method"
            )
        if name not in self.calibrated.energies:
            raise ConfigError(
                f"{name}: {method} chooses channels by their energy, and none was given; calibrate first"
            )
        energies = torch.as_tensor(self.calibrated.energies[name]).cpu()
        channels = kind.traits(module).channels
        if energies.shape != (channels,):
            raise ConfigError(
                f"{name}: energies of shape {tuple(energies.shape)}, and it has {channels} channels"
            )
        return method.choose(energies, seed)

    def _mean(self, name: str, module: nn.Module, method: Method, channels: Tensor | None) -> Tensor | None:
        if not method.centers or not is_weighted(module):
            return None
        if name not in self.calibrated.means:
            raise ConfigError(f"{name}: {method} is centered, but no mean was given for it; calibrate first")
        weight = module._parameters["weight"]
        mean = torch.as_tensor(self.calibrated.means[name]).detach().to(weight)
        return mean if channels is None else mean[channels.to(mean.device)]

    def _line(
        self,
        name: str,
        module: nn.Module,
        action: str,
        *,
        method: Method | None = None,
        reason: str = "",
        into: str = "",
    ) -> None:
        text = reason or describe(module, method, into)
        self.lines.append(Line(name, layers.original_class(module).__name__, action, str(method or ""), text))


def _draws(module: nn.Module) -> bool:
    """Return whether a layer is random, and so must have a random stream of its own, wherever it stands."""
    kind = layers.kind_of(module)
    return kind is not None and kind.state is not layers.LayerState


def _pools_first(module: nn.Module, method: Method) -> bool:
    """Return whether the layer may be given only the mean of its input: exact, with fewer bytes and products."""
    kind = weight_kind_of(module)
    return method.pools_first and kind is not None and kind.traits(module).poolable
