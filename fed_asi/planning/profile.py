"""The result of a calibration, as a value and a file: bytes and gradient errors of every layer's candidates.

A profile is made once (`calibration.profile`) and sent to clients as JSON. From it a plan for any budget takes
milliseconds.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from fed_asi.errors import ProfileError
from fed_asi.files import write_text
from fed_asi.methods import Method
from fed_asi.methods.bases import Bases, from_rows, to_rows
from fed_asi.planning.columns import columns
from fed_asi.planning.json_file import describing, read_text, read_versioned
from fed_asi.units import format_bytes

VERSION = 3  # 3 says what was tried; 2 tried everything; 1 had saved bytes instead of the papers' count
_OLDEST = 2


@dataclass(frozen=True, slots=True)
class ModelFingerprint:
    """What a profile or plan was made for; it applies to any model with an equal fingerprint.

    model: digest of the parameters' names and shapes. input_shape: (C, H, W) of one image. dtype: of the images.
    """

    model: str
    input_shape: tuple[int, ...]
    dtype: str

    @classmethod
    def of(cls, model: nn.Module, x: Tensor) -> ModelFingerprint:
        """Return the fingerprint of `model` fed with x: (B, C, H, W)."""
        shapes = repr([(name, tuple(p.shape)) for name, p in sorted(model.named_parameters())])
        digest = hashlib.sha256(shapes.encode()).hexdigest()[:16]
        return cls(digest, tuple(x.shape[1:]), str(x.dtype).removeprefix("torch."))

    def check(self, found: ModelFingerprint, what: str) -> None:
        """Raise ProfileError naming every difference from `found`; `what` is "profile" or "plan"."""
        ours, theirs = asdict(self), asdict(found)
        differing = [
            f"{key} {theirs[key]} instead of {ours[key]}" for key in ours if ours[key] != theirs[key]
        ]
        if differing:
            raise ProfileError(
                f"the {what} was made for something else: {'; '.join(differing)}. Calibrate again."
            )

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> ModelFingerprint:
        """Return the fingerprint that `dataclasses.asdict` wrote."""
        return cls(str(data["model"]), tuple(data["input_shape"]), str(data["dtype"]))


@dataclass(frozen=True, slots=True)
class Candidate:
    """One form in which a layer's input may be kept, at one micro-batch.

    saved_bytes: what this layer keeps of its input. published_bytes: the papers' count of the same.
    error: ||dW_kept - dW||_F of the calibration batch (the published perplexity).
    captured: ||dW_c||^2 - ||dW_kept - dW||^2, with dW_c the gradient of centred inputs (absolute, summable
        across layers).
    epsilon: the HOSVD share of energy that gave these ranks, for the published selection; None otherwise.
    thin: whether dW comes as a product of thin matrices, which an update at once never makes whole.
    """

    method: Method
    saved_bytes: int
    published_bytes: int
    error: float
    captured: float
    epsilon: float | None = None
    thin: bool = False


@dataclass(frozen=True, slots=True)
class LayerProfile:
    """One layer: sizes, gradient norms on the calibration batch, candidates by micro-batch.

    input_shape: of one image, without the batch. position: in module order, as "last 4" counts.
    weight_norm: ||dW||_F. bias_energy: ||dbias||^2.
    mean: (C,), the input's mean per channel, subtracted by centred candidates. element_bytes: of one weight.
    bases: the factors that calibration fixed, by the method's text.
    scale_parameters: of the batch norm after the layer; weight_parameters includes them. channel_energies: (C,),
    centred_energy by input channel; empty in profiles older than the methods that choose channels.
    """

    name: str
    kind: str
    input_shape: tuple[int, ...]
    position: int
    weight_parameters: int
    bias_parameters: int
    weight_norm: float
    centered_energy: float
    bias_energy: float
    mean: tuple[float, ...]
    candidates: dict[int, tuple[Candidate, ...]]
    head: bool = False
    element_bytes: int = 4
    bases: dict[str, Bases] = field(default_factory=dict)
    scale_parameters: int = 0
    channel_energies: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class Profile:
    """All layers in the order of the forward pass, and the bytes that no form can avoid.

    floors: per micro-batch, the bytes kept besides inputs (masks, the loss) when layer i is the first trained one.
    centered, grid: what was tried, as in `fed_asi.profile`; a plan that needs more is refused.
    """

    fingerprint: ModelFingerprint
    layers: tuple[LayerProfile, ...]
    floors: dict[int, tuple[int, ...]]
    num_examples: int
    selection: str = "candidates"
    notes: tuple[str, ...] = ()
    version: int = field(default=VERSION)
    centered: bool | None = None
    grid: bool = True

    @property
    def micro_batches(self) -> tuple[int, ...]:
        """Return the micro-batches that have candidates, ascending."""
        return tuple(sorted(self.floors))

    def layer(self, name: str) -> LayerProfile:
        """Return the layer with this qualified name. Raises KeyError if there is none."""
        return next(layer for layer in self.layers if layer.name == name)

    def check(self, model: nn.Module, x: Tensor) -> None:
        """Raise ProfileError if this profile was made for another model, resolution or dtype."""
        self.fingerprint.check(ModelFingerprint.of(model, x), "profile")

    def to_json(self) -> str:
        """Return the profile as one line of JSON, with its version."""
        data = {
            "version": self.version,
            "fingerprint": asdict(self.fingerprint),
            "num_examples": self.num_examples,
            "selection": self.selection,
            "notes": list(self.notes),
            "centered": self.centered,
            "grid": self.grid,
            "floors": {str(b): list(sizes) for b, sizes in self.floors.items()},
            "layers": [_layer_to_dict(layer) for layer in self.layers],
        }
        return json.dumps(data, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str, source: str = "profile") -> Profile:
        """Return the profile that `to_json` wrote. Raises ProfileError naming `source` if it is corrupt or newer."""
        data = read_versioned(text, source, VERSION, _OLDEST)
        with describing(source):
            return cls(
                fingerprint=ModelFingerprint.from_dict(data["fingerprint"]),
                layers=tuple(_layer_from_dict(layer) for layer in data["layers"]),
                floors={int(b): tuple(int(s) for s in sizes) for b, sizes in data["floors"].items()},
                num_examples=int(data["num_examples"]),
                selection=str(data["selection"]),
                notes=tuple(data["notes"]),
                centered=None if data.get("centered") is None else bool(data["centered"]),
                grid=bool(data.get("grid", True)),
            )

    def save(self, path: Path | str) -> None:
        """Write the profile as JSON. Raises RunError if it cannot be written."""
        write_text(Path(path), self.to_json() + "\n")

    @classmethod
    def load(cls, path: Path | str) -> Profile:
        """Return the profile in a JSON file. Raises ProfileError if the file is missing, corrupt or newer."""
        return cls.from_json(read_text(path), str(path))

    def __str__(self) -> str:
        rows: list[tuple[str, ...]] = [("layer", "input", "||dW||", "forms", "smallest", "whole")]
        smallest = self.micro_batches[0]
        for layer in self.layers:
            sizes = [c.saved_bytes for c in layer.candidates[smallest]] or [0]
            shape = "x".join(str(n) for n in layer.input_shape)
            texts = (str(len(sizes)), format_bytes(min(sizes)), format_bytes(max(sizes)))
            rows.append((layer.name, shape, f"{layer.weight_norm:.3g}", *texts))
        head = f"profile of {self.num_examples} examples, bytes at micro-batch {smallest}"
        return f"{head}\n{columns(rows)}"


def _layer_to_dict(layer: LayerProfile) -> dict[str, Any]:
    return {
        "name": layer.name,
        "kind": layer.kind,
        "input_shape": list(layer.input_shape),
        "position": layer.position,
        "parameters": [layer.weight_parameters, layer.bias_parameters, layer.scale_parameters],
        "norms": [layer.weight_norm, layer.centered_energy, layer.bias_energy],
        "mean": [float(f"{m:.6g}") for m in layer.mean],
        "channel_energies": [float(f"{e:.6g}") for e in layer.channel_energies],
        "head": layer.head,
        "element_bytes": layer.element_bytes,
        "bases": {method: to_rows(bases) for method, bases in layer.bases.items()},
        "candidates": {str(b): [_row(c) for c in found] for b, found in layer.candidates.items()},
    }


def _row(candidate: Candidate) -> list[Any]:
    c = candidate
    return [str(c.method), c.saved_bytes, c.published_bytes, c.error, c.captured, c.epsilon, c.thin]


def _layer_from_dict(data: Mapping[str, Any]) -> LayerProfile:
    weight_norm, centered_energy, bias_energy = (float(value) for value in data["norms"])
    return LayerProfile(
        name=str(data["name"]),
        kind=str(data["kind"]),
        input_shape=tuple(data["input_shape"]),
        position=int(data["position"]),
        weight_parameters=int(data["parameters"][0]),
        bias_parameters=int(data["parameters"][1]),
        weight_norm=weight_norm,
        centered_energy=centered_energy,
        bias_energy=bias_energy,
        mean=tuple(float(m) for m in data["mean"]),
        candidates={int(b): _candidates(rows) for b, rows in data["candidates"].items()},
        head=bool(data["head"]),
        element_bytes=int(data.get("element_bytes", 4)),
        bases={str(method): from_rows(rows) for method, rows in data.get("bases", {}).items()},
        channel_energies=tuple(float(e) for e in data.get("channel_energies", ())),
        scale_parameters=sum(int(count) for count in data["parameters"][2:]),  # missing in older profiles
    )


def _candidates(rows: Iterable[Sequence[Any]]) -> tuple[Candidate, ...]:
    return tuple(_candidate(*row) for row in rows)


def _candidate(
    method: str,
    saved: int,
    published: int,
    error: float,
    captured: float,
    epsilon: float | None,
    thin: bool = False,  # missing in older profiles: then gradients count as whole
) -> Candidate:
    found = Method.parse(method)
    return Candidate(found, int(saved), int(published), float(error), float(captured), epsilon, bool(thin))
