"""Layers that keep only what their backward pass needs: one file per kind, imported automatically."""

from __future__ import annotations

from functools import partial
from importlib import import_module
from pkgutil import iter_modules

from fed_asi.layers.base import (
    LayerKind,
    LayerState,
    attach_,
    commit_factors_,
    compressed_layers,
    detach_,
    factors,
    go_along_,
    kind_of,
    load_factors_,
    only_looks,
    original_class,
    register,
    register_late,
    remember_constants_,
    slices_of,
    state_of,
)
from fed_asi.layers.clipping import Clip
from fed_asi.layers.conv import (
    CompressedConv1d,
    CompressedConv2d,
    CompressedConv3d,
    CompressedConvTranspose2d,
)
from fed_asi.layers.linear import CompressedLinear

__all__ = [
    "Clip",
    "CompressedConv1d",
    "CompressedConv2d",
    "CompressedConv3d",
    "CompressedConvTranspose2d",
    "CompressedLinear",
    "LayerKind",
    "LayerState",
    "attach_",
    "commit_factors_",
    "compressed_layers",
    "detach_",
    "factors",
    "go_along_",
    "kind_of",
    "load_factors_",
    "only_looks",
    "original_class",
    "register",
    "register_late",
    "remember_constants_",
    "slices_of",
    "state_of",
]

_LATE = {"stochastic_depth"}  # files that import a library which may not be needed
for _module in iter_modules(__path__):  # to add a kind, add a file
    if _module.name not in _LATE:
        import_module(f"{__name__}.{_module.name}")
register_late("torchvision.ops.stochastic_depth", partial(import_module, "fed_asi.layers.stochastic_depth"))
