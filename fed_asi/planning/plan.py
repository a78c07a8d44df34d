"""A plan as a value and a file: for every layer the form in which its input is kept, and one micro-batch."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from torch import Tensor, nn

from fed_asi.files import write_text
from fed_asi.memory.stored import Format
from fed_asi.methods import Frozen, Method
from fed_asi.methods.bases import Bases, from_rows, to_rows
from fed_asi.planning.columns import columns
from fed_asi.planning.json_file import describing, read_text, read_versioned
from fed_asi.planning.profile import ModelFingerprint
from fed_asi.units import format_bytes

VERSION = 1
Update = Literal["step", "micro-batch", "layer"]  # when weights move: after each of these


FLOOR = "(floor)"
GRADIENT = "(largest gradient)"


@dataclass(frozen=True, slots=True)
class Plan:
    """How each layer of a model keeps its input; layers that are not in `methods` are frozen.

    planned_bytes: what the step keeps of one micro-batch, as `count` counts it. value: the objective; larger is better.
    means: the fixed mean per channel of the layers planned with `centered=True`.
    bases: the factors that calibration fixed, for layers whose method uses them. energies: the centred gradient energy
    of each input channel, for layers whose method chooses some of them.
    update, storage: for a whole-device plan, when weights move, and the format of what is only read.
    layer_bytes: bytes by layer; "(floor)" stands for what no form avoids: masks, pooled features, the loss;
        "(largest gradient)" for the largest gradient that is whole at one time, with updates layer by layer.
    """

    fingerprint: ModelFingerprint
    budget_bytes: int | None
    planned_bytes: int
    micro_batch: int
    methods: dict[str, Method]
    objective: str = "captured"
    value: float = 0.0
    count: str = "saved"
    layer_bytes: dict[str, int] = field(default_factory=dict)
    means: dict[str, tuple[float, ...]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    bases: dict[str, Bases] = field(default_factory=dict)
    energies: dict[str, tuple[float, ...]] = field(default_factory=dict)
    update: Update | None = None
    storage: Format | None = None
    version: int = VERSION

    def check(self, model: nn.Module, x: Tensor) -> None:
        """Raise ProfileError if this plan was made for another model, resolution or dtype."""
        self.fingerprint.check(ModelFingerprint.of(model, x), "plan")

    @property
    def trained(self) -> tuple[str, ...]:
        """Return the names of all layers with a trained part, in forward order."""
        return tuple(name for name, method in self.methods.items() if method.trains_bias)

    def to_dict(self) -> dict[str, Any]:
        """Return the plan as a JSON object, its version first."""
        data = asdict(self) | {"methods": {name: method.to_dict() for name, method in self.methods.items()}}
        data["means"] = {name: [float(f"{m:.6g}") for m in mean] for name, mean in self.means.items()}
        data["bases"] = {name: to_rows(bases) for name, bases in self.bases.items()}
        return {"version": data.pop("version"), **data}

    def to_json(self) -> str:
        """Return the plan as indented JSON, with its version."""
        return json.dumps(self.to_dict(), indent=1)

    @classmethod
    def from_json(cls, text: str, source: str = "plan") -> Plan:
        """Return the plan that `to_json` wrote. Raises ProfileError naming `source` if it is corrupt or newer."""
        data = read_versioned(text, source, VERSION)
        with describing(source):
            budget = data["budget_bytes"]
            return cls(
                fingerprint=ModelFingerprint.from_dict(data["fingerprint"]),
                budget_bytes=None if budget is None else int(budget),
                planned_bytes=int(data["planned_bytes"]),
                micro_batch=int(data["micro_batch"]),
                methods={name: Method.from_dict(method) for name, method in data["methods"].items()},
                objective=str(data["objective"]),
                value=float(data["value"]),
                count=str(data["count"]),
                layer_bytes={name: int(size) for name, size in data["layer_bytes"].items()},
                means={name: tuple(float(m) for m in mean) for name, mean in data["means"].items()},
                notes=tuple(data["notes"]),
                bases={name: from_rows(rows) for name, rows in data.get("bases", {}).items()},
                energies={name: tuple(map(float, one)) for name, one in data.get("energies", {}).items()},
                update=data.get("update"),
                storage=data.get("storage"),
            )

    def save(self, path: Path | str) -> None:
        """Write the plan as JSON. Raises RunError if it cannot be written."""
        write_text(Path(path), self.to_json() + "\n")

    @classmethod
    def load(cls, path: Path | str) -> Plan:
        """Return the plan in a JSON file. Raises ProfileError if the file is missing, corrupt or newer."""
        return cls.from_json(read_text(path), str(path))

    def table(self, errors: Mapping[str, str] | None = None, width: int | None = None) -> str:
        """Return a table with a line per layer: its form, its bytes and, if given, its gradient error.

        width: in characters; longer cells wrap.
        """
        rows: list[tuple[str, ...]] = [("layer", "kept as", "bytes", "dW error" if errors else "")]
        for name, method in self.methods.items():
            size = format_bytes(self.layer_bytes.get(name, 0))
            rows.append((name, method.text(), size, (errors or {}).get(name, "")))
        rows.append(("masks, loss", "", format_bytes(self.layer_bytes.get(FLOOR, 0)), ""))
        if GRADIENT in self.layer_bytes:
            rows.append(("largest gradient", "", format_bytes(self.layer_bytes[GRADIENT]), ""))
        head = (
            f"budget {format_bytes(self.budget_bytes)}, planned {format_bytes(self.planned_bytes)} "
            f"({self.count}), micro-batch {self.micro_batch}, {self.objective} {self.value:.4g}"
        )
        if self.update is not None:
            head += f'\nweights move by "{self.update}", frozen weights are stored as {self.storage}'
        return f"{head}\n{columns(rows, width)}"

    def __str__(self) -> str:
        return self.table()


def differences(left: Plan, right: Plan) -> dict[str, tuple[str, str]]:
    """Return what differs between two plans: layer or field name -> its text in each plan."""
    found: dict[str, tuple[str, str]] = {}
    for name in ("micro_batch", "planned_bytes", "budget_bytes", "objective", "count", "update", "storage"):
        _note(found, name, getattr(left, name), getattr(right, name))
    sides: tuple[Mapping[str, Method], Mapping[str, Method]] = (left.methods, right.methods)
    for name in dict.fromkeys([*left.methods, *right.methods]):
        _note(found, name, *(side.get(name, Frozen()) for side in sides))
    return found


def _note(found: dict[str, tuple[str, str]], name: str, left: object, right: object) -> None:
    if left != right:
        found[name] = (str(left), str(right))
