"""Layers that keep only what their backward pass needs, one file a kind, registered."""

from __future__ import annotations

from functools import partial
from importlib import import_module

from fed_asi.layers import activation as activation
from fed_asi.layers import dropout as dropout
from fed_asi.layers import gradient_filter as gradient_filter
from fed_asi.layers import norm as norm
from fed_asi.layers import pool as pool
from fed_asi.layers.base import (
    LayerKind,
    LayerState,
    attach_,
    commit_factors_,
    compressed_layers,
    detach_,
    factors,
    kind_of,
    load_factors_,
    only_looks,
    original_class,
    register,
    register_late,
    state_of,
)
from fed_asi.layers.conv import (
    CompressedConv1d,
    CompressedConv2d,
    CompressedConv3d,
    CompressedConvTranspose2d,
)
from fed_asi.layers.linear import CompressedLinear

__all__ = [
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
    "kind_of",
    "load_factors_",
    "only_looks",
    "original_class",
    "register",
    "register_late",
    "state_of",
]

register_late("torchvision.ops.stochastic_depth", partial(import_module, "fed_asi.layers.stochastic_depth"))
