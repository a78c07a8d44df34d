"""Strategy and codec on a device: what it holds, sends and keeps; and how the server reads what it sent.

Tensors of the strategy travel with the weights, named "KIND..NAME". A device sends back each trained tensor as its
codec encodes it, and the strategy's own tensors whole.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

import torch
from torch import Tensor

from fed_asi.codecs.base import Codec, wire_name
from fed_asi.devices.kept import ByKind
from fed_asi.errors import UpdateError
from fed_asi.fleets.aggregate import codec_of, strategy_of
from fed_asi.fleets.config import RunConfig
from fed_asi.gpus import CPU
from fed_asi.strategies.aggregate import Slice, part_of
from fed_asi.strategies.base import Strategy, extra_name
from fed_asi.strategies.local import AtDevice, named_on

RESIDUAL = "residual"
Slices = Mapping[str, Slice]
WHOLE: Slices = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Exchange:
    """A run's strategy and codec: which tensors travel besides plain weights, and how they are encoded."""

    strategy: Strategy
    codec: Codec

    @classmethod
    def of(cls, config: RunConfig) -> Exchange:
        """Return the strategy and codec of a fleet file."""
        return cls(strategy_of(config.aggregate), codec_of(config.upload))

    @property
    def when_lost(self) -> str:
        """What a device does if it has lost what it kept."""
        unsent = "what it still had to send is lost" if self.codec.error_feedback else ""
        return "; ".join(text for text in (self.strategy.when_lost, unsent) if text)

    def split(self, tensors: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, dict[str, Tensor]]]:
        """Return the weights of a job, and the strategy's tensors, by kind and name."""
        weights, beside = dict(tensors), dict[str, dict[str, Tensor]]()
        for kind in self.strategy.extras:
            prefix = extra_name(kind, "")
            names = [name for name in weights if name.startswith(prefix)]
            beside[kind] = {name.removeprefix(prefix): weights.pop(name) for name in names}
        return weights, beside

    def sizes(self, reference: Mapping[str, Tensor]) -> dict[str, int]:
        """Return the bytes of every tensor that a reply may carry, by its name on the wire."""
        found: dict[str, int] = {}
        for name, tensor in reference.items():
            pieces = {} if self.codec.whole else self.codec.pieces(tuple(tensor.shape))
            found |= {wire_name(piece, name): form.nbytes for piece, form in pieces.items()}
            found |= {name: tensor.nbytes} if self.codec.whole else {}
            found |= {extra_name(kind, name): tensor.nbytes for kind in self.strategy.extras}
        return found

    def read(
        self,
        sent: Mapping[str, Tensor],
        trained: Collection[str],
        tensors: Mapping[str, Tensor],
        slices: Slices = WHOLE,
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Return the tensors that a reply encodes, and the strategy's tensors, by name on the wire.

        sent: the reply's tensors. trained: names of those that it claims to have trained. tensors: the weights it was
        sent, whole. slices: for those trained in part, which part.
        Raises UpdateError, naming the tensor, for a piece that is missing, has another form or does not decode to a
        finite tensor, and for a part that does not fit.
        """
        left = dict(sent)
        names = [extra_name(kind, name) for kind in self.strategy.extras for name in trained]
        beside = {name: left.pop(name) for name in names if name in left}
        if self.codec.whole:
            return left, beside
        for name in sorted(set(trained) - set(tensors)):
            raise UpdateError(f"surplus tensor {name}")
        found = {}
        for name in sorted(trained):
            start = part_of(name, slices.get(name), tensors[name])
            shape = tuple(start.shape)
            keys = {piece: wire_name(piece, name) for piece in self.codec.pieces(shape)}
            pieces = {piece: left.pop(key) for piece, key in keys.items() if key in left}
            moved = self.codec.decode(name, pieces, shape)
            found[name] = (start.to(torch.float64) + moved.to(torch.float64)).to(start.dtype)
        return {**found, **left}, beside  # what is left was not asked for


class Upload:
    """One round of one device: the local part of its strategy, and the encoding of its update.

    given: what the device has when its round begins, by the names of the trained tensors; whole tensors. slices: for
    tensors trained in part, which part. The strategy and codec then work on that part alone; what is kept is made whole
    again. device: where its steps compute; what is given, sent and kept is on the CPU.
    """

    def __init__(
        self, exchange: Exchange, given: AtDevice, slices: Slices = WHOLE, device: torch.device = CPU
    ) -> None:
        self._codec, self._whole, self._slices = exchange.codec, given, slices
        given = _cut(given, slices)
        self.given, self.local = given, exchange.strategy.at_device(given.on(device))
        kept = given.kept.get(RESIDUAL, {}) if self._codec.error_feedback else {}
        self._others = {name: tensor for name, tensor in kept.items() if name not in given.start}
        self._residual = {
            name: kept.get(name, torch.zeros(start.shape, dtype=torch.float32))
            for name, start in (given.start if self._codec.error_feedback else {}).items()
        }

    @property
    def held_bytes(self) -> int:
        """Bytes of the copies that are in memory besides the weights while it trains."""
        held = self.local.held()
        if not self._codec.whole:
            held |= {"start": self.given.start}
        return sum(t.nbytes for named in (*held.values(), self._residual) for t in named.values())

    def finish(self, end: Mapping[str, Tensor], steps: int) -> tuple[dict[str, Tensor], ByKind]:
        """Return what is sent, by name on the wire, and what is kept, by kind. end: the weights after the last step."""
        left, end = self.local.finish(end, steps).on(CPU), named_on(end, CPU)
        sent = {extra_name(kind, name): t for kind, named in left.extra.items() for name, t in named.items()}
        if self._codec.whole:
            return {**end, **sent}, self._kept_whole(left.kept)
        residual = dict(self._others)
        for name, start in self.given.start.items():
            moved = (end[name].to(torch.float64) - start.to(torch.float64)).to(torch.float32)
            if self._codec.error_feedback:
                moved = moved + self._residual[name]
            pieces = self._codec.encode(moved)
            sent |= {wire_name(piece, name): tensor for piece, tensor in pieces.items()}
            if self._codec.error_feedback:
                residual[name] = moved - self._codec.restored(pieces, tuple(start.shape))
        return sent, self._kept_whole({**left.kept, **({RESIDUAL: residual} if residual else {})})

    def _kept_whole(self, kept: ByKind) -> ByKind:
        """Return what is kept, with parts put into what was kept before, or into zeros."""
        return {
            kind: {name: self._put(kind, name, tensor) for name, tensor in named.items()}
            for kind, named in kept.items()
        }

    def _put(self, kind: str, name: str, tensor: Tensor) -> Tensor:
        part = self._slices.get(name)
        if part is None or name not in self._whole.start:
            return tensor
        before = self._whole.kept.get(kind, {}).get(name)
        if before is None:
            before = torch.zeros(self._whole.start[name].shape, dtype=tensor.dtype)
        return before.index_copy(part.dim, part.index, tensor)


def _cut(given: AtDevice, slices: Slices) -> AtDevice:
    """Return what a device has, cut to the parts that it trains."""
    if not slices:
        return given

    def cut(named: Mapping[str, Tensor]) -> dict[str, Tensor]:
        own = named.keys() & slices.keys() & given.start.keys()
        return {**named, **{name: part_of(name, slices[name], named[name]) for name in own}}

    sent, kept = ({kind: cut(named) for kind, named in one.items()} for one in (given.sent, given.kept))
    return replace(given, start=cut(given.start), sent=sent, kept=kept)
