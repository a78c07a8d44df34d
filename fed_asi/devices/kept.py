"""What a device keeps between its rounds: warm factors of its methods, and tensors of its strategy and codec.

All of it is one state, stored as in `warm_factors.py`: named lists of tensors. Tensors of strategy and codec are named
"KIND..NAME", which no layer is called, as the parts of a layer's name are not empty.
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
    """A device's state in two parts. factors: of its methods. by_kind: of strategy and codec, by kind and name."""

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
        """Both parts as one state."""
        own = {
            extra_name(kind, name): [t] for kind, named in self.by_kind.items() for name, t in named.items()
        }
        return {**self.factors, **own}

    @property
    def nbytes(self) -> int:
        """The size of the state in bytes."""
        return factors_bytes(self.state)
