"""Some input channels only: their part of the weight trains, the rest stays fixed.

The kept input, the gradient and the upload shrink by the same share. dW of the kept channels is exact (that of the
rounded input at 8 bits). dX is exact, as the forward uses the whole weight. A batch norm's gamma is not trained, as
its gradient would need every channel. Channels are chosen by the centred gradient energy that calibration found: once
for a run, or drawn anew each round.
Source: TraDy, arXiv 2510.19675, for channels drawn anew.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import ClassVar, Literal, get_args

import torch
from torch import Tensor

from fed_asi import seeds
from fed_asi.errors import ConfigError, UnsupportedLayerError, nearest
from fed_asi.methods.base import Keeper, LayerInput, Method, Ranks, register
from fed_asi.methods.forms import Kept, LowBits, SomeChannels, Whole
from fed_asi.methods.quantized import Quantized
from fed_asi.methods.sizes import LayerSize, Passes, Traits

Pick = Literal["energy", "round"]
PICKS = get_args(Pick)
SHARES = (32, 16, 8, 4, 2)  # one in so many of a layer's channels
TINY = 1e-30


@register
@dataclass(frozen=True, slots=True)
class Channels(Method):
    """`count` input channels are kept and trained; of a depthwise convolution, the filters that belong to them.

    count: input channels. bits: 32, or 8 to keep them rounded, with an offset and a scale a sample.
    pick: "energy" takes the channels with the most centred gradient energy, the same in every round. "round" draws
    new
        ones in each round, seeded, with a chance that grows with a channel's energy.
    """

    kind: ClassVar[str] = "channels"
    aliases: ClassVar[tuple[str, ...]] = ("channel-subset",)
    example: ClassVar[str] = "channels(count=16)"
    trains_scale: ClassVar[bool] = False
    picks_channels: ClassVar[bool] = True
    count: int
    bits: int = 32
    centered: bool = False
    pick: Pick = "energy"

    def __post_init__(self) -> None:
        if isinstance(self.count, bool) or not isinstance(self.count, int) or self.count < 1:
            raise ConfigError(f"channels: count must be an integer above 0, not {self.count!r}")
        if self.bits not in (8, 32):
            raise ConfigError(f"channels: bits must be 32 or 8, not {self.bits!r}")
        if self.pick not in PICKS:
            raise ConfigError(f"channels: unknown pick {self.pick!r}; {nearest(str(self.pick), PICKS)}")

    def unsupported(self, layer: Traits) -> str | None:
        """Return why this layer cannot train some input channels only: its weight has no such part, or too few."""
        if layer.transposed or layer.groups not in (1, layer.channels):
            what = "a transposed convolution" if layer.transposed else f"{layer.groups} groups"
            return f"method 'channels' needs a dense, depthwise or linear layer, not {what}; choose another method"
        if self.count > layer.channels:
            return f"method 'channels' keeps {self.count} of {layer.channels} channels; lower count"
        return None

    def choose(self, energies: Tensor, seed: int) -> Tensor:
        """Return `count` channels, ascending: those of most energy, or drawn without replacement by energy."""
        scores = energies.double()
        if self.pick == "round":  # the top k of log(energy) + Gumbel noise are a draw without replacement
            uniform = torch.from_numpy(seeds.rng(seed, "channels").random(len(scores)))
            scores = scores.clamp_min(TINY).log() - uniform.clamp_min(TINY).log().neg().log()
        order = torch.sort(scores, descending=True, stable=True).indices
        return order[: self.count].sort().values

    def keep(self, x: Tensor, keeper: Keeper) -> Kept:
        """Return the chosen channels of x: (N, C, *S), centred if the method centres."""
        channels = _channels(keeper)
        part = x.index_select(1, channels)
        if self.centers:
            if keeper.mean is None:
                raise UnsupportedLayerError(f"{keeper.name}: a centered method needs the means of its input")
            mean = (
                keeper.mean if keeper.mean.shape == channels.shape else keeper.mean.index_select(0, channels)
            )
            part = part - mean.to(part).view(1, -1, *[1] * (part.dim() - 2))
        return self._form_of(part, channels, x.shape[1])

    def form(self, x: Tensor, keeper: Keeper) -> Kept:
        """Return the chosen channels of x: (N, C, *S), centred already."""
        channels = _channels(keeper)
        return self._form_of(x.index_select(1, channels), channels, x.shape[1])

    def _form_of(self, part: Tensor, channels: Tensor, total: int) -> Kept:
        kept = LowBits.of(part, 8) if self.bits == 8 else Whole((part,))
        return SomeChannels(kept.tensors, kept, channels, total)

    def trained_parameters(self, weight: int, scale: int, channels: int) -> int:
        """Return how many of a layer's parameters train, bias not counted."""
        return (weight - scale) // channels * self.count

    def kept_bytes(self, dims: Sequence[int], dtype: torch.dtype) -> int:
        """Return the bytes of the channels kept."""
        numel = self.count * prod(dims[2:])
        if self.bits == 8:
            return LowBits.numel_bytes(dims[0], numel, 8, max(dtype.itemsize, 4))
        return dtype.itemsize * dims[0] * numel

    def published_bytes(self, size: LayerSize, ranks: Ranks = (), element_bytes: int = 4) -> int:
        """Return the bytes of the channels kept."""
        dtype = torch.float64 if element_bytes == 8 else torch.float32
        return self.kept_bytes(size.dims, dtype)

    def dw_macs(self, size: LayerSize, ranks: Ranks = ()) -> int:
        """Return those of the channels kept."""
        return size.forward_macs // size.dims[1] * self.count

    def overhead_macs(self, size: LayerSize, ranks: Ranks = ()) -> int:
        """Return one for each element that is rounded."""
        return size.dims[0] * self.count * prod(size.dims[2:]) if self.bits == 8 else 0

    def keeping(self, size: LayerSize, ranks: Ranks = ()) -> Passes:
        """Return the copy of the channels, and the passes over it where it is rounded."""
        part = self._part(size)
        calls, elements = Quantized(8).keeping(part) if self.bits == 8 else Passes()
        return Passes(1 + calls, prod(part.dims) + elements)

    def restoring(self, size: LayerSize, ranks: Ranks = ()) -> Passes:
        """Return the passes that restore the channels, and the addition of their part of dW."""
        calls, elements = Quantized(8).restoring(self._part(size)) if self.bits == 8 else Passes()
        return Passes(1 + calls, elements)

    def _part(self, size: LayerSize) -> LayerSize:
        return replace(size, dims=(size.dims[0], self.count, *size.dims[2:]))

    @classmethod
    def propose(cls, seen: LayerInput, pick: Pick = "energy") -> Iterator[tuple[Method, float | None]]:
        """Yield shares of the layer's channels, whole and in 8 bits, centred or not."""
        if seen.published or seen.channels < 2:
            return
        for count in dict.fromkeys(max(1, seen.channels // share) for share in SHARES):
            for bits in (32, 8):
                yield from ((Channels(count, bits, centered=c, pick=pick), None) for c in seen.centering)

    def words(self) -> str:
        """Return how many channels, in which form."""
        drawn = ", drawn each round" if self.pick == "round" else ""
        return f"{self.count} channels" + (" in 8 bits" if self.bits == 8 else "") + drawn


def _channels(keeper: Keeper) -> Tensor:
    if keeper.channels is None:
        raise UnsupportedLayerError(f"{keeper.name}: its channels were not chosen; calibrate first")
    return keeper.channels
