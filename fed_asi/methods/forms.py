"""The forms in which an input waits for the backward pass, and how it is restored from them.

A layer passes its input in one canonical view, x: (N, C, *S), whatever its own layout. A form holds `tensors` (what
autograd must keep) and restores x_hat: (N, C, *S) from them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from math import prod

import torch
from torch import Tensor

from fed_asi import tucker

SMALLEST_SCALE = 1e-12


@dataclass(slots=True)
class Kept:
    """Base: nothing is kept."""

    tensors: tuple[Tensor, ...] = ()

    @property
    def published_bytes(self) -> int:
        """The bytes of this form as the papers count them."""
        return sum(tensor.nbytes for tensor in self.tensors)

    def restore(self) -> Tensor:
        """Return x_hat: (N, C, *S), the input the kept tensors stand for."""
        raise RuntimeError("nothing was kept of this input")


@dataclass(slots=True)
class Whole(Kept):
    """The input itself."""

    def restore(self) -> Tensor:
        """Return the input."""
        return self.tensors[0]


@dataclass(slots=True)
class LowBits(Kept):
    """Unsigned 8 or 4 bits an element, with an offset and a step for each sample."""

    bits: int = 8
    shape: torch.Size = field(default_factory=lambda: torch.Size([0]))
    dtype: torch.dtype = torch.float32

    @classmethod
    def of(cls, x: Tensor, bits: int) -> LowBits:
        """Return x: (N, ...) rounded to the nearest of 2**bits levels a sample."""
        flat = x.reshape(x.shape[0], -1).to(torch.float32 if x.dtype != torch.float64 else x.dtype)
        low, high = flat.aminmax(dim=1, keepdim=True)
        step = ((high - low) / (2**bits - 1)).clamp_min_(SMALLEST_SCALE)
        levels = flat.sub(low).div_(step).round_().to(torch.uint8)
        if bits == 4:
            levels = _pack_nibbles(levels)
        return cls((levels, torch.cat([low, step], dim=1)), bits, x.shape, x.dtype)

    def restore(self) -> Tensor:
        """Return x_hat, off by at most half a step."""
        levels, scales = self.tensors
        if self.bits == 4:
            levels = _unpack_nibbles(levels, prod(self.shape[1:]))
        low, step = scales[:, :1], scales[:, 1:]
        return levels.to(scales.dtype).mul_(step).add_(low).view(self.shape).to(self.dtype)

    @staticmethod
    def numel_bytes(samples: int, numel: int, bits: int, scale_bytes: int) -> int:
        """Return the bytes of `samples` samples of `numel` elements each."""
        return samples * (-(-numel * bits // 8) + 2 * scale_bytes)


def _pack_nibbles(levels: Tensor) -> Tensor:
    if levels.shape[1] % 2:
        levels = torch.nn.functional.pad(levels, (0, 1))
    pairs = levels.view(levels.shape[0], -1, 2)
    return pairs[..., 0] | (pairs[..., 1] << 4)


def _unpack_nibbles(packed: Tensor, numel: int) -> Tensor:
    return torch.stack([packed & 15, packed >> 4], dim=2).flatten(1)[:, :numel]


@dataclass(slots=True)
class SomeChannels(Kept):
    """Some channels of the input, in a form of their own. channels: (k,), ascending, of so many."""

    inner: Kept = field(default_factory=Kept)
    channels: Tensor = field(default_factory=lambda: torch.empty(0, dtype=torch.long))
    total: int = 0

    def part(self) -> Kept:
        """Return the kept channels as an input of their own: (N, k, *S)."""
        self.inner.tensors = self.tensors
        return self.inner

    def restore(self) -> Tensor:
        """Return x_hat, zero in the channels that are not kept."""
        part = self.part().restore()
        whole = part.new_zeros(part.shape[0], self.total, *part.shape[2:])
        return whole.index_copy_(1, self.channels, part)


def micro_batches(kept: Kept, samples: int, size: int) -> Iterator[tuple[slice, Kept]]:
    """Yield the rows of each micro-batch of an input, and these as an input of their own, restored.

    samples: of the input. size: of a micro-batch; the last may be smaller.
    """
    part = kept.part() if isinstance(kept, SomeChannels) else kept
    x = part.restore() if kept.tensors else None
    for start in range(0, samples, size):
        rows = slice(start, min(start + size, samples))
        if x is None:
            yield rows, Kept()
        elif isinstance(kept, SomeChannels):
            yield rows, SomeChannels((x[rows],), Whole(), kept.channels, kept.total)
        else:
            yield rows, Whole((x[rows],))


@dataclass(slots=True)
class Form:
    """One Tucker form of m micro-batches side by side: where its tensors are, and its sizes.

    first: index of the core among the kept tensors. present: for each mode (B, C, *S), whether it has a factor.
    int8: each tensor is followed by its scales.
    """

    first: int
    present: tuple[bool, ...]
    int8: bool = False

    def size(self) -> int:
        """Return how many of the kept tensors belong to this form."""
        return (1 + sum(self.present)) * (2 if self.int8 else 1)


@dataclass(slots=True)
class TuckerInput(Kept):
    """Tucker forms of consecutive samples; more than one where micro-batches differ in size or ranks."""

    forms: list[Form] = field(default_factory=list)
    shape: torch.Size = field(default_factory=lambda: torch.Size([0]))
    dtype: torch.dtype = torch.float32

    def add(self, core: Tensor, factors: Sequence[Tensor | None], int8: bool = False) -> None:
        """Append the form of the next samples; core: (m, r_1, ...), factors: (m, d_i, r_i) or None."""
        parts = [core, *(f for f in factors if f is not None)]
        self.forms.append(Form(len(self.tensors), tuple(f is not None for f in factors), int8))
        if int8:
            parts = [t for part in parts for t in round_int8(part)]
        self.tensors += tuple(parts)

    def in_int8(self) -> TuckerInput:
        """Return the same forms with core and factors rounded to int8; these keep full precision."""
        rounded = TuckerInput(shape=self.shape, dtype=self.dtype)
        for form in self.forms:
            rounded.add(*self.part(form), int8=True)
        return rounded

    def part(self, form: Form) -> tuple[Tensor, tucker.Factors]:
        """Return (core, factors) of one form, in the dtype they are computed in."""
        found = list(self.tensors[form.first : form.first + form.size()])
        if form.int8:
            found = [restore_int8(*found[i : i + 2]).to(self.dtype) for i in range(0, len(found), 2)]
        rest = iter(found[1:])
        return found[0], [next(rest) if here else None for here in form.present]

    @property
    def published_bytes(self) -> int:
        """The bytes of core and factors. The papers count a (d, d) factor for a mode kept whole, too."""
        identities = 0
        for form in self.forms:
            core = self.tensors[form.first]
            whole = [d for d, here in zip(core.shape[1:], form.present, strict=True) if not here]
            identities += core.shape[0] * sum(d * d for d in whole) * core.element_size()
        return sum(tensor.nbytes for tensor in self.tensors) + identities

    def restore(self) -> Tensor:
        """Return x_hat: the forms multiplied out."""
        whole = [tucker.expand(*self.part(form)).flatten(0, 1) for form in self.forms]
        return whole[0] if len(whole) == 1 else torch.cat(whole)


def round_int8(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return (int8 levels, scales) of x: (m, a, b, ...), with one scale for each (m, b).

    In a factor, b counts its columns; in a core, the ranks of its channel mode.
    """
    dims = [d for d in range(1, x.dim()) if d != 2]
    scale = x.abs().amax(dim=dims, keepdim=True).div_(127).clamp_min_(SMALLEST_SCALE)
    return (x / scale).round_().to(torch.int8), scale


def restore_int8(levels: Tensor, scale: Tensor) -> Tensor:
    """Return the values, as `round_int8` rounded them."""
    return levels.to(scale.dtype) * scale


def tucker_bytes(dims: Sequence[int], ranks: Sequence[int], element_bytes: int, int8: bool = False) -> int:
    """Return the bytes of one Tucker form of modes (B, C, *S) at ranks within them."""
    if not int8:
        return element_bytes * tucker.kept_numel(dims, ranks)
    scales = ranks[1] + sum(r for d, r in zip(dims, ranks, strict=True) if r < d)
    return tucker.kept_numel(dims, ranks) + element_bytes * scales
