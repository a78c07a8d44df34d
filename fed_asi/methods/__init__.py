"""How a trained layer keeps its input until the backward pass, one file a method; new files are found by themselves.

`base.py` says what a method is. `family.py` and `recipe.py` say what plans and fleet files may ask for by name.
"""

from __future__ import annotations

from importlib import import_module
from pkgutil import iter_modules

from fed_asi.methods.asi import ASI
from fed_asi.methods.base import KINDS, Keeper, LayerInput, Method, register
from fed_asi.methods.bias_only import BiasOnly
from fed_asi.methods.channels import Channels
from fed_asi.methods.family import Family, families, register_family
from fed_asi.methods.fixed_subspace import FixedSubspace
from fed_asi.methods.frozen import Frozen
from fed_asi.methods.gradient_filter import GradientFilter
from fed_asi.methods.hosvd import HOSVD
from fed_asi.methods.quantized import Quantized
from fed_asi.methods.recipe import Recipe, recipe_names, recipe_of, register_recipe
from fed_asi.methods.sizes import LayerSize, Traits
from fed_asi.methods.spatial_mean import SpatialMean
from fed_asi.methods.vanilla import Vanilla

for _module in iter_modules(__path__):  # so that a new method is a new file and no more
    import_module(f"{__name__}.{_module.name}")

__all__ = [
    "ASI",
    "HOSVD",
    "KINDS",
    "BiasOnly",
    "Channels",
    "Family",
    "FixedSubspace",
    "Frozen",
    "GradientFilter",
    "Keeper",
    "LayerInput",
    "LayerSize",
    "Method",
    "Quantized",
    "Recipe",
    "SpatialMean",
    "Traits",
    "Vanilla",
    "families",
    "recipe_names",
    "recipe_of",
    "register",
    "register_family",
    "register_recipe",
]
