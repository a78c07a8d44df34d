"""What a device keeps between its rounds: its methods' warm factors, and what its strategy and codec keep, by kind.

All of it is one state, written and read as `warm_factors.py` has it: named lists of tensors. A kind's tensors are
there as "KIND..NAME", which no layer is called: the parts of a layer's name are not empty.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor

from fed_asi.devices.warm_factors import WarmFactors, factors_bytes
from fed_asi.strategies.base import extra_name

ByKind = Mapping[str, Mapping[str, Tensor]]


@dataclass(frozen=True, slots=True)
class Kept:
    """A device's state in its two parts. factors: of methods. by_kind: of strategy and codec, by kind and name."""

    factors: WarmFactors = field(default_factory=dict)
    by_kind: ByKind = field(default_factory=dict)

    @classmethod
    def of(cls, state: WarmFactors) -> Kept:
        """Return the parts of a state that `state` made."""
        factors, by_kind = WarmFactors(), dict[str, dict[str, Tensor]]()
        for name, parts in state.items():
            kind, dots, tensor = name.partition("..")
            if dots:
                by_kind.setdefault(kind, {})[tensor] = parts[0]
            else:
                factors[name] = parts
        return cls(factors, by_kind)

    @property
    def state(self) -> WarmFactors:
        """All of it as one."""
        own = {
            extra_name(kind, name): [t] for kind, named in self.by_kind.items() for name, t in named.items()
        }
        return {**self.factors, **own}

    @property
    def nbytes(self) -> int:
        """Its bytes."""
        return factors_bytes(self.state)
