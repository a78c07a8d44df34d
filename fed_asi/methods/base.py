"""What a method is: how a trained layer keeps its input until the backward pass, as one frozen, versioned value.

A method only says *what* is kept. The forward output and dX are exact under every method but GradientFilter. dW is
the exact weight gradient of the input as restored from the kept form.

A new method is one file: a frozen dataclass under `register` that overrides what differs from keeping the input
whole. `form` computes what is kept, `kept_bytes` says how many bytes that is, `propose` what calibration tries, and
`unsupported` which layers it cannot keep. The counts say what it costs in multiply-accumulates and other passes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import MISSING, dataclass, fields, replace
from math import prod
from typing import Any, ClassVar, Protocol, Self, TypeVar

import torch
from torch import Tensor

from fed_asi import own_code, tucker
from fed_asi.errors import ConfigError, UnsupportedLayerError, nearest
from fed_asi.methods.forms import Kept, Whole
from fed_asi.methods.literals import arguments
from fed_asi.methods.sizes import LayerSize, Passes, Traits

Ranks = tuple[int, ...]


class Keeper(Protocol):
    """What a method is given by the layer whose input it keeps; `fed_asi.layers.LayerState` is one.

    mean: (C,) the input's fixed mean. channels: (k,) those kept, for a method that chooses some. factors: those of the
    last step, one for each mode of the input, (d, r); pending: those of the newest micro-batch, set anew by every call
    of a method whose `warm_start` is True, and by no other. seed: the only source of random starts.
    """

    name: str
    seed: int
    micro_batch: int | None
    mean: Tensor | None
    channels: Tensor | None
    factors: tucker.Factors | None
    pending: tucker.Factors | None


@dataclass(frozen=True, slots=True)
class LayerInput:
    """What calibration knows of a layer's input in micro-batches of one size; forms are proposed from it.

    spectra: for each mode (b, C, *S), the eigenvalues of its Gram matrix. pooled: the output only feeds a global
    average pool. head: the layer is the classifier. published: only the papers' grid is wanted; grid: it is wanted too.
    density:
    how many rank tuples are worth trying. centered: whether to try forms of the centred input; None for both kinds.
    channels: how many the input has; 0 if unknown.
    """

    spectra: Callable[[], Sequence[Tensor]]
    pooled: bool = False
    head: bool = False
    published: bool = False
    density: int = 10
    grid: bool = False
    centered: bool | None = None
    channels: int = 0

    @property
    def centering(self) -> tuple[bool, ...]:
        """Whether to try the input as it is, centred, or both."""
        if self.published:
            return (False,)
        return (False, True) if self.centered is None else (self.centered,)


@dataclass(frozen=True, slots=True)
class Method:
    """Base of every method; it keeps the input whole. `kind` is its name in fleet files and plans."""

    kind: ClassVar[str] = ""
    aliases: ClassVar[tuple[str, ...]] = ()
    fleet_name: ClassVar[str] = ""  # its name in fleet files, if that is not the kind
    example: ClassVar[str] = ""  # how to write it, if it needs settings
    version: ClassVar[int] = 1
    trains_weight: ClassVar[bool] = True
    trains_bias: ClassVar[bool] = True
    trains_scale: ClassVar[bool] = True  # whether a batch norm's gamma trains with the weight
    picks_channels: ClassVar[bool] = False  # it chooses channels by their energy
    sized: ClassVar[bool] = True  # its bytes follow from shapes alone, not from the data
    exact: ClassVar[bool] = False  # dW is plain PyTorch's, so that calibration need not try it
    keeps_whole: ClassVar[bool] = False  # it keeps the input itself, which other layers can share
    restores: ClassVar[bool] = (
        True  # the kept form restores an input; else calibration tries the layer itself
    )
    pools_first: ClassVar[bool] = True  # in front of a global pool, it is applied to the input's spatial mean
    needs_pool: ClassVar[bool] = False
    plannable: ClassVar[bool] = True  # a plan may be asked for it by name
    by_default: ClassVar[bool] = False  # plans use it where no method is asked for
    must_fit: ClassVar[bool] = False  # if it is asked for, at least one layer must take it

    @property
    def slope_bits(self) -> int | None:
        """The bits in which a smooth activation keeps its slope under this method; None if it cannot."""
        return None

    @property
    def centers(self) -> bool:
        """Whether the centred input is kept."""
        return bool(getattr(self, "centered", False))

    def centred(self) -> Self:
        """Return the same form of the centred input; itself if it has no such form."""
        has = any(field.name == "centered" for field in fields(self))
        return replace(self, **{"centered": True}) if has else self

    def uncentred(self) -> Self:
        """Return the same form of the input without centring."""
        return replace(self, **{"centered": False}) if self.centers else self

    @property
    def warm_start(self) -> bool:
        """Whether each step starts from the factors of the last one."""
        return False

    @property
    def mode_ranks(self) -> Ranks:
        """One rank for each mode of the input, in the layer's own order; empty if the data decide them."""
        return ()

    def reordered(self, order: Callable[[Ranks], Ranks]) -> Self:
        """Return the method with its settings by mode (such as ranks) put in another order."""
        return self

    def pooled(self) -> Self:
        """Return the method for an input whose spatial modes were pooled away."""
        return self

    def unsupported(self, layer: Traits) -> str | None:
        """Return why it cannot keep the input of a layer with these traits, and what to do; None if it can."""
        return None

    def choose(self, energies: Tensor, seed: int) -> Tensor | None:
        """Return the channels to keep, ascending, chosen by centred gradient energies (C,); None keeps all."""
        return None

    def trained_parameters(self, weight: int, scale: int, channels: int) -> int:
        """Return how many of a layer's parameters train, bias not counted.

        weight: the number in its weight and its batch norm's gamma. scale: gamma's share of these. channels: of its
        input.
        """
        return weight if self.trains_weight else 0

    def thin_gradient(self, layer: Traits) -> bool:
        """Return whether dW of one micro-batch is always a product of two thin matrices, never formed whole."""
        return layer.pointwise and self.restores

    def keep(self, x: Tensor, keeper: Keeper) -> Kept:
        """Return what is kept of x: (N, C, *S); new warm factors become pending. Ranks are in x's order."""
        return self.form(x - channel_mean(x, keeper) if self.centers else x, keeper)

    def form(self, x: Tensor, keeper: Keeper) -> Kept:
        """Return what is kept of x: (N, C, *S), already centred if the method centres."""
        return Whole((x,))

    def unrounded(self) -> Self:
        """Return the method before rounding to fewer bits; itself if it rounds nothing."""
        return self

    def rounded(self, kept: Kept) -> Kept:
        """Return what this method keeps, given what its `unrounded` form keeps."""
        return kept

    def calibrated(self, x: Tensor) -> tucker.Factors | None:
        """Return the factors that calibration fixes, from x: (N, C, *S), already centred; None if it fixes none."""
        return None

    def kept_dims(self, dims: Ranks, out: Ranks) -> Ranks:
        """Return the dimensions of what is kept of an input of `dims`. out: dimensions of the output, (N, C', *S')."""
        return dims

    def kept_bytes(self, dims: Sequence[int], dtype: torch.dtype) -> int:
        """Return the bytes of one micro-batch's input, (N, C, *S), in this form, warm factors included.

        If the data decide, this is an upper bound: the whole input.
        """
        return dtype.itemsize * prod(dims) if self.trains_weight else 0

    def found_ranks(self, x: Tensor, keeper: Keeper) -> Ranks:
        """Return the ranks of the form of x: (N, C, *S), one for each mode; empty if it has none."""
        return ()

    def published_bytes(self, size: LayerSize, ranks: Ranks = (), element_bytes: int = 4) -> int:
        """Return the bytes of the kept input as the papers count them: without masks or other layers."""
        return element_bytes * prod(size.dims) if self.trains_weight else 0

    def published_flops(self, size: LayerSize, ranks: Ranks = ()) -> int:
        """Return forward, dW and compression as the papers count them: MACs, which they call FLOPs."""
        if not self.trains_weight:
            return 0
        return published_forward(size) + size.dense * prod(size.out[:1] + size.out[2:])

    def dw_macs(self, size: LayerSize, ranks: Ranks = ()) -> int:
        """Return the multiply-accumulates of the weight gradient from the kept form."""
        return size.forward_macs if self.trains_weight else 0

    def dx_macs(self, size: LayerSize) -> int:
        """Return the multiply-accumulates of the input gradient."""
        return size.forward_macs

    def overhead_macs(self, size: LayerSize, ranks: Ranks = ()) -> int:
        """Return the multiply-accumulates of compressing the input."""
        return 0

    def keeping(self, size: LayerSize, ranks: Ranks = ()) -> Passes:
        """Return the passes that compressing the input takes besides `overhead_macs`, centring not counted."""
        return Passes()

    def restoring(self, size: LayerSize, ranks: Ranks = ()) -> Passes:
        """Return the passes that dW from the kept form takes besides `dw_macs`, without its own kernel."""
        return Passes()

    @classmethod
    def propose(cls, seen: LayerInput) -> Iterator[tuple[Method, float | None]]:
        """Yield the forms worth trying for a layer, ranks as (B, C, *S); an epsilon marks the papers' grid.

        Further keyword arguments are settings of the fleet file.
        """
        yield from ()

    def text(self) -> str:
        """Return the form in a few words, such as "Tucker 1x8x4x4 in 8 bits, centred"."""
        return self.words() + (", centred" if self.centers else "")

    def words(self) -> str:
        """Return the form in a few words, centring not mentioned."""
        return str(self)

    def to_dict(self) -> dict[str, Any]:
        """Return the method as JSON values, with its kind and version."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        plain = {k: list(v) if isinstance(v, tuple) else v for k, v in values.items()}
        return {"kind": self.kind, "version": self.version, **plain}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Method:
        """Return the method that `to_dict` wrote. Raises ConfigError for unknown kinds, keys and versions."""
        values = dict(data)
        kind = values.pop("kind", None)
        if not isinstance(kind, str):
            raise ConfigError(f"a method needs a kind; known: {', '.join(sorted(KINDS))}")
        target = class_of(kind)
        version = values.pop("version", target.version)
        if version != target.version:
            raise ConfigError(f"method {kind!r} has version {version}; this release reads {target.version}")
        return make(target, values)

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
        name, values = arguments(value)
        return make(class_of(name), values)

    def __str__(self) -> str:
        inside = ", ".join(f"{f.name}={getattr(self, f.name)!r}" for f in fields(self))
        return f"{self.kind}({inside})" if inside else self.kind


KINDS: dict[str, type[Method]] = {}  # kind -> method; a plan or a profile may hold any of them
_OWN: dict[
    str, type[Method]
] = {}  # of a user's own code: plans and profiles may hold them, fleet files cannot name them
_Class = TypeVar("_Class", bound=type[Method])


def register(cls: _Class) -> _Class:
    """Return `cls`, now known by its kind and aliases, in fleet files and plans too."""
    KINDS[cls.kind] = cls
    return cls


FORM = (
    'class Mine(fed_asi.methods.Method): a frozen dataclass with kind: ClassVar[str] = "mine", '
    "def form(self, x, keeper), def kept_bytes(self, dims, dtype) and a classmethod propose(cls, seen)"
)


def own(name: str) -> type[Method]:
    """Return a method of the user's own code, now known to plans and profiles by its kind.

    Raises ConfigError where it is not a method, or another method has its kind.
    """
    found: type[Method] = own_code.load(name)
    own_code.check_class(name, found, Method, FORM)
    if not found.kind or found.propose.__func__ is Method.propose.__func__:  # type: ignore[attr-defined]
        lacks = "propose" if found.kind else "its kind"
        raise ConfigError(f"{own_code.shown_name(name)} lacks {lacks}; write it as {FORM}")
    own_code.check_call(f"{name}.propose", found.propose, FORM, None)
    if KINDS.get(found.kind, found) is not found:
        raise ConfigError(
            f"{own_code.shown_name(name)}: its kind {found.kind!r} is another method's: choose one"
        )
    _OWN[found.kind] = found
    return found


def class_of(name: str) -> type[Method]:
    """Return the method of that kind, alias or class name. Raises ConfigError, naming the nearest ones."""
    known = names()
    key = name.strip().lower().replace("_", "-")
    if key not in known:
        raise ConfigError(f"unknown method {name!r}; {nearest(key, known)}")
    return known[key]


def kinds() -> dict[str, type[Method]]:
    """Return every method by its kind: those registered, in order, then those of a user's own code."""
    return {**KINDS, **dict(sorted(_OWN.items()))}


def names() -> dict[str, type[Method]]:
    """Return every name of every method."""
    found = kinds()
    for cls in KINDS.values():
        found |= dict.fromkeys((*cls.aliases, cls.__name__.lower()), cls)
    return found


def make(cls: type[Method], values: Mapping[str, Any]) -> Method:
    """Return a method with these settings. Raises ConfigError for unknown, missing or wrong ones."""
    known = {f.name: f for f in fields(cls)}
    unknown = [key for key in values if key not in known]
    if unknown:
        hint = nearest(unknown[0], known) if known else "it takes none"
        raise ConfigError(f"method {cls.kind!r} has no option {unknown[0]!r}; {hint}")
    missing = [name for name, field in known.items() if field.default is MISSING and name not in values]
    if missing:
        raise ConfigError(f'method "{cls.kind}" needs {missing[0]}, such as {cls.example}')
    return cls(**values)


def channel_mean(x: Tensor, keeper: Keeper) -> Tensor:
    """Return the layer's fixed mean, shaped (1, C, 1, ...). Raises an error where calibration gave none."""
    if keeper.mean is None or keeper.mean.numel() != x.shape[1]:
        raise UnsupportedLayerError(
            f"{keeper.name}: a centered method needs the channel means of its input "
            f"({x.shape[1]} values); pass them from a profile"
        )
    return keeper.mean.to(x).view(1, -1, *[1] * (x.dim() - 2))


def published_forward(size: LayerSize) -> int:
    """Return the forward pass as the papers count it: on the input's grid, groups ignored."""
    return size.dense * prod(size.dims[:1] + size.dims[2:])
