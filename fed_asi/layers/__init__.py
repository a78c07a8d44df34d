"""Layers that keep only what their backward pass needs, one file a kind, registered."""

from __future__ import annotations

from fed_asi.layers.base import (
    Factors,
    LayerKind,
    LayerState,
    attach_,
    commit_factors_,
    compressed_layers,
    detach_,
    factors,
    kind_of,
    load_factors_,
    original_class,
    register,
    state_of,
)

__all__ = [
    "Factors",
    "LayerKind",
    "LayerState",
    "attach_",
    "commit_factors_",
    "compressed_layers",
    "detach_",
    "factors",
    "kind_of",
    "load_factors_",
    "original_class",
    "register",
    "state_of",
]
