"""How a trained layer keeps its input until the backward pass: one frozen, versioned value a method.

A method says only *what* is kept. Forward outputs and dX are exact under all of them but
GradientFilter; dW is the exact weight gradient of the input the kept form gives back.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, ClassVar

from fed_asi.errors import ConfigError, nearest

ORDERS = ("sequential", "published")


@dataclass(frozen=True, slots=True)
class Method:
    """Base of every method; `kind` is its name in fleet files and plans."""

    kind: ClassVar[str] = ""
    aliases: ClassVar[tuple[str, ...]] = ()
    version: ClassVar[int] = 1
    trains_weight: ClassVar[bool] = True
    trains_bias: ClassVar[bool] = True
    sized: ClassVar[bool] = True  # its bytes follow from shapes alone, not from the data

    def to_dict(self) -> dict[str, Any]:
        """Return the method as JSON values, with its kind and version."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        plain = {k: list(v) if isinstance(v, tuple) else v for k, v in values.items()}
        return {"kind": self.kind, "version": self.version, **plain}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Method:
        """Return the method that `to_dict` wrote; ConfigError for unknown kinds, keys and versions."""
        values = dict(data)
        kind = values.pop("kind", None)
        if not isinstance(kind, str):
            raise ConfigError(f"a method needs a kind; known: {', '.join(sorted(KINDS))}")
        target = _class_of(kind)
        version = values.pop("version", target.version)
        if version != target.version:
            raise ConfigError(f"method {kind!r} has version {version}; this release reads {target.version}")
        return _make(target, values)

    @classmethod
    def parse(cls, value: str | Mapping[str, Any] | Method) -> Method:
        """Return the method that `value` names.

        value: a Method, what `to_dict` gives, a kind such as "vanilla", or a call such as
            "asi(ranks=(8, 8, 3, 3))" or "quantized(bits=4)".
        Raises ConfigError, with the nearest names, for anything else.
        """
        if isinstance(value, Method):
            return value
        if isinstance(value, Mapping):
            return cls.from_dict(value)
        if not isinstance(value, str):
            raise ConfigError(f"method {value!r} is neither a name nor a table")
        name, bracket, rest = value.strip().partition("(")
        values = _arguments(value, bracket + rest) if bracket else {}
        return _make(_class_of(name), values)

    @property
    def centers(self) -> bool:
        """Whether the input less its fixed mean is kept."""
        return bool(getattr(self, "centered", False))

    def text(self) -> str:
        """Return the form in a few words, such as "Tucker 1x8x4x4 in 8 bits, centred"."""
        words = {"vanilla": "whole", "mean": "spatial mean", "bias": "bias only"}.get(self.kind, str(self))
        if isinstance(self, ASI):
            words = f"Tucker {'x'.join(str(r) for r in self.ranks)}" + (
                " in 8 bits" if self.bits == 8 else ""
            )
        if isinstance(self, Quantized):
            words = f"{self.bits} bits"
        return words + (", centred" if self.centers else "")

    def __str__(self) -> str:
        inside = ", ".join(f"{f.name}={getattr(self, f.name)!r}" for f in fields(self))
        return f"{self.kind}({inside})" if inside else self.kind


@dataclass(frozen=True, slots=True)
class Frozen(Method):
    """The weight and bias are not trained and the input is not kept; dX is exact."""

    kind: ClassVar[str] = "frozen"
    trains_weight: ClassVar[bool] = False
    trains_bias: ClassVar[bool] = False


@dataclass(frozen=True, slots=True)
class BiasOnly(Method):
    """Only the bias (of the layer or of its batch norm) is trained; the input is not kept."""

    kind: ClassVar[str] = "bias"
    aliases: ClassVar[tuple[str, ...]] = ("bias-only",)
    trains_weight: ClassVar[bool] = False


@dataclass(frozen=True, slots=True)
class Vanilla(Method):
    """The input is kept whole, as plain PyTorch does."""

    kind: ClassVar[str] = "vanilla"
    centered: bool = False


@dataclass(frozen=True, slots=True)
class Quantized(Method):
    """The input is kept in 8 or 4 bits an element, with an offset and a scale for each sample."""

    kind: ClassVar[str] = "quantized"
    bits: int = 8
    centered: bool = False

    def __post_init__(self) -> None:
        if self.bits not in (4, 8):
            raise ConfigError(f"quantized: bits must be 8 or 4, not {self.bits!r}")


@dataclass(frozen=True, slots=True)
class SpatialMean(Method):
    """The spatial mean of the input is kept.

    Exact for a 1x1 convolution, stride 1, whose output only feeds a global average pool.
    """

    kind: ClassVar[str] = "mean"
    aliases: ClassVar[tuple[str, ...]] = ("spatial-mean",)


@dataclass(frozen=True, slots=True)
class ASI(Method):
    """A Tucker form found by warm-started subspace iteration, at fixed ranks.

    ranks: one for each mode of the input: (B, C, H, W) for a 2-d convolution, (B, F) or (B, N, F)
        for a linear layer. A batch smaller than its rank uses the batch size, a channel rank that is not whole
        at most the pixels of a micro-batch.
    order: "sequential" truncates mode after mode, channels first; "published" finds every mode
        from the whole input, batch mode first, as the papers do.
    bits: 32, or 8 to keep core and factors in int8 with one scale a row.
    warm: start from the last step's factors, which stay in memory between steps; False starts anew
        from the same random numbers with two iterations, and keeps nothing.
    Source: Nguyen et al., arXiv 2505.05086, section 3.
    """

    kind: ClassVar[str] = "asi"
    ranks: tuple[int, ...]
    order: str = "sequential"
    bits: int = 32
    centered: bool = False
    warm: bool = True

    def __post_init__(self) -> None:
        if not isinstance(self.ranks, (tuple, list)) or not self.ranks:
            raise ConfigError(f"asi: ranks must be one integer a mode, not {self.ranks!r}")
        if not all(isinstance(r, int) and not isinstance(r, bool) and r > 0 for r in self.ranks):
            raise ConfigError(f"asi: every rank must be an integer above 0, not {self.ranks!r}")
        object.__setattr__(self, "ranks", tuple(self.ranks))
        if self.order not in ORDERS:
            raise ConfigError(f"asi: unknown order {self.order!r}; {nearest(str(self.order), ORDERS)}")
        if self.bits not in (8, 32):
            raise ConfigError(f"asi: bits must be 32 or 8, not {self.bits!r}")


@dataclass(frozen=True, slots=True)
class HOSVD(Method):
    """A Tucker form cut anew at every step where each mode holds a share `epsilon` of the energy."""

    kind: ClassVar[str] = "hosvd"
    sized: ClassVar[bool] = False
    epsilon: float = 0.8
    centered: bool = False

    def __post_init__(self) -> None:
        _check_share(self.kind, self.epsilon)


@dataclass(frozen=True, slots=True)
class FixedSubspace(Method):
    """A Tucker core in factors found once by calibration; the batch mode is kept whole.

    Source: LANCE, arXiv 2509.21617.
    """

    kind: ClassVar[str] = "fixed"
    aliases: ClassVar[tuple[str, ...]] = ("fixed-subspace", "lance")
    sized: ClassVar[bool] = False
    epsilon: float = 0.7
    centered: bool = False

    def __post_init__(self) -> None:
        _check_share(self.kind, self.epsilon)


@dataclass(frozen=True, slots=True)
class GradientFilter(Method):
    """Input and output gradient are averaged over patches; dX is approximate too.

    Source: Yang et al., arXiv 2301.00330.
    """

    kind: ClassVar[str] = "filter"
    aliases: ClassVar[tuple[str, ...]] = ("gradient-filter",)
    patch: int = 2

    def __post_init__(self) -> None:
        if not isinstance(self.patch, int) or isinstance(self.patch, bool) or self.patch < 1:
            raise ConfigError(f"filter: patch must be an integer above 0, not {self.patch!r}")


KINDS: dict[str, type[Method]] = {
    cls.kind: cls
    for cls in (
        Frozen, BiasOnly, Vanilla, Quantized, SpatialMean, ASI, HOSVD, FixedSubspace, GradientFilter,
    )
}  # fmt: skip


def _check_share(kind: str, epsilon: object) -> None:
    if isinstance(epsilon, bool) or not isinstance(epsilon, (int, float)) or not 0 < epsilon <= 1:
        raise ConfigError(f"{kind}: epsilon must be above 0 and at most 1, not {epsilon!r}")


def _names() -> dict[str, type[Method]]:
    names = dict(KINDS)
    for cls in KINDS.values():
        names |= dict.fromkeys((*cls.aliases, cls.__name__.lower()), cls)
    return names


def _class_of(name: str) -> type[Method]:
    known = _names()
    key = name.strip().lower().replace("_", "-")
    if key not in known:
        raise ConfigError(f"unknown method {name!r}; {nearest(key, known)}")
    return known[key]


def _arguments(text: str, call: str) -> dict[str, Any]:
    """Return the keyword values of "(ranks=(8, 8, 3, 3), bits=8)"; only literals are read."""
    try:
        node = ast.parse(f"f{call}", mode="eval").body
        if not isinstance(node, ast.Call) or node.args or any(k.arg is None for k in node.keywords):
            raise ValueError("not keyword arguments")
        return {str(k.arg): ast.literal_eval(k.value) for k in node.keywords}
    except (SyntaxError, ValueError) as error:
        raise ConfigError(
            f'method {text!r} is not understood; write such as "asi(ranks=(8, 8, 3, 3))"'
        ) from error


def _make(cls: type[Method], values: Mapping[str, Any]) -> Method:
    known = [f.name for f in fields(cls)]
    unknown = [key for key in values if key not in known]
    if unknown:
        hint = nearest(unknown[0], known) if known else "it takes none"
        raise ConfigError(f"method {cls.kind!r} has no option {unknown[0]!r}; {hint}")
    if cls is ASI and "ranks" not in values:
        raise ConfigError('method "asi" needs ranks, such as asi(ranks=(8, 8, 3, 3))')
    return cls(**values)
