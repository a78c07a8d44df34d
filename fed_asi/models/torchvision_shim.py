"""torchvision, importable beside any build of torch.

torchvision's compiled operators do not load beside a CPU-only torch of another build, and its import then stops at
"operator torchvision::nms does not exist". Nothing here calls those operators, so declaring that they
exist is enough for its datasets, transforms and models. Always import torchvision from this module.
"""

from __future__ import annotations

import contextlib
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from fed_asi.errors import WeightsError

_SCHEMAS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)
_declared: list[torch.library.Library] = []  # kept alive, as a Library's operators vanish with it


def _compiled_operators_load(folder: Path) -> bool:
    """Return whether torchvision's own binary loads into this torch."""
    for binary in sorted([*folder.glob("_C*.so"), *folder.glob("_C*.pyd")]):
        with contextlib.suppress(OSError):
            torch.ops.load_library(str(binary))  # type: ignore[no-untyped-call]
            return True
    return False


def _import_torchvision() -> Any:
    spec = find_spec("torchvision")
    if spec is None or spec.origin is None:
        raise WeightsError(
            "torchvision is not installed; install torchvision 0.28 with torch 2.13, or 0.29 with 2.14"
        )
    if not _compiled_operators_load(Path(spec.origin).parent):
        library = torch.library.Library("torchvision", "FRAGMENT")  # type: ignore[no-untyped-call]
        for schema in _SCHEMAS:
            library.define(schema)  # type: ignore[no-untyped-call]
        _declared.append(library)
    import torchvision as module

    return module


torchvision = _import_torchvision()
