"""How a trained layer keeps its input until the backward pass: one file a method."""

from __future__ import annotations

from fed_asi.methods.base import (
    ASI,
    HOSVD,
    KINDS,
    ORDERS,
    BiasOnly,
    FixedSubspace,
    Frozen,
    GradientFilter,
    Method,
    Quantized,
    SpatialMean,
    Vanilla,
)

__all__ = [
    "ASI",
    "HOSVD",
    "KINDS",
    "ORDERS",
    "BiasOnly",
    "FixedSubspace",
    "Frozen",
    "GradientFilter",
    "Method",
    "Quantized",
    "SpatialMean",
    "Vanilla",
]
