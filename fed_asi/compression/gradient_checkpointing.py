"""Gradient checkpointing, the rival that every PyTorch user knows: keep little, compute the forward twice.

The network runs in segments under torch.utils.checkpoint. Between forward and backward only the inputs of the segments
are kept; the backward pass runs each segment's forward again. What that second forward keeps is alive while the
segment's backward runs, so that of the largest segment is added to the inputs (`recomputed_bytes`).
Source: Chen et al., arXiv 1604.06174.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator

import torch
from torch import Tensor, fx, nn
from torch.utils.checkpoint import checkpoint

from fed_asi.compression.cut import segments
from fed_asi.memory.meter import ActivationMeter


class Checkpointed(nn.Module):
    """A network that keeps the inputs of its segments and recomputes the rest in the backward pass.

    The segments have the network's own modules and Parameters; gradients are those of the network itself.
    recomputed_bytes: what the largest segment keeps while its backward runs, for the size of the last batch.
    """

    def __init__(self, parts: Collection[fx.GraphModule]) -> None:
        super().__init__()
        self.parts = nn.ModuleList(parts)
        self.recomputed_bytes = 0
        self._known: dict[torch.Size, int] = {}

    @classmethod
    def of(cls, model: nn.Module, trained: Collection[str], example: Tensor) -> Checkpointed:
        """Return `model` in segments, one for each trained layer where the data flow allows it.

        trained: qualified names of the trained layers or parameters. example: (B, ...), a batch to read sizes from.
        Raises UnsupportedLayerError for a network that cannot be traced, ConfigError if `trained` names nothing.
        """
        return cls(segments(model, trained, example))

    def forward(self, x: Tensor) -> Tensor:
        """Return model(x)."""
        if not torch.is_grad_enabled():
            for part in self.parts:
                x = part(x)
            return x
        self.recomputed_bytes = self.measure(x)
        for part in self.parts:
            if x.requires_grad or any(p.requires_grad for p in part.parameters()):
                x = checkpoint(part, x, use_reentrant=False, preserve_rng_state=False)
            else:
                x = part(x)  # nothing in it trains, so it is never recomputed
        return x

    def measure(self, x: Tensor) -> int:
        """Return the most bytes that one segment keeps for a batch like x, besides its input; run once a shape."""
        if x.shape not in self._known:
            self._known[x.shape] = max(self._kept(x))
        return self._known[x.shape]

    def _kept(self, x: Tensor) -> Iterator[int]:
        for part in self.parts:
            start = x.detach().clone().requires_grad_(x.requires_grad)
            with ActivationMeter(part, constants=(start,)) as meter:
                x = part(start)
            yield meter.saved_bytes
