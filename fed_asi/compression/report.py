"""What compress_ did, layer by layer, for people and for tests."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from torch import nn

from fed_asi.layers import kind_of
from fed_asi.methods import Method


@dataclass(frozen=True, slots=True)
class Line:
    """One layer: what it is, what was done ("compressed", "fused", "left"), by which method, and why."""

    name: str
    kind: str
    action: str
    method: str
    reason: str


@dataclass(frozen=True, slots=True)
class CompressionReport:
    """What compress_ did.

    lines: every layer touched or left, in forward order. trained: names of the parameters that train.
    untraced: why the network's data flow could not be read, so that nothing was fused; None if it was.
    """

    lines: tuple[Line, ...]
    trained: tuple[str, ...]
    seed: int
    micro_batch: int | None
    untraced: str | None = None

    def of(self, action: str) -> tuple[Line, ...]:
        """Return the lines with this action."""
        return tuple(line for line in self.lines if line.action == action)

    def __getitem__(self, name: str) -> Line:
        """Return the line of layer `name`; KeyError when there is none."""
        for line in self.lines:
            if line.name == name:
                return line
        raise KeyError(name)

    def __str__(self) -> str:
        counts = Counter(line.action for line in self.lines)
        head = ", ".join(f"{counts[action]} {action}" for action in ("compressed", "fused", "left"))
        rows = [
            f"  {line.name:<40} {line.kind:<20} {line.action:<10} {line.method:<28} {line.reason}".rstrip()
            for line in self.lines
            if "before the first" not in line.reason
        ]
        note = [f"  not traced, so nothing is fused: {self.untraced}"] if self.untraced else []
        return "\n".join([f"{head}; {len(self.trained)} parameters train", *note, *rows])


def describe(module: nn.Module, method: Method | None, into: str) -> str:
    """Return in a few words what a compressed layer keeps."""
    if into:
        return f"computed by {into}"
    kind = kind_of(module)
    return "" if kind is None or method is None else kind.remark(module, method)
