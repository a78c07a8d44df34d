"""Networks by name: those registered by this package or from outside, a user's own, and torchvision's classifiers.

torchvision is imported, and asked for its names, only if a name is none of the others.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import nn

from fed_asi import libraries, own_code
from fed_asi.errors import ConfigError, nearest

Statistics = tuple[tuple[float, float, float], tuple[float, float, float]]
Build = Callable[..., nn.Module]  # (num_classes, resolution), and seed if it has such a parameter
KIND = "network"
FORM = "def build(num_classes, resolution, seed) -> torch.nn.Module"

IMAGENET: Statistics = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
HALF: Statistics = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
RESOLUTION = 224

# Networks whose constructor would add auxiliary heads, or whose initialisation takes a minute.
_EXTRA: dict[str, dict[str, Any]] = {
    "googlenet": {"aux_logits": False, "init_weights": False},
    "inception_v3": {"aux_logits": False, "init_weights": False},
}


@dataclass(frozen=True, slots=True)
class Network:
    """What is known of a network: its canonical name, how it is built, and what its weights were made for.

    rename: from a key in a file of weights to the network's own. surplus: prefixes of keys that such a file may have
    besides. pretrained: downloads its weights, for a height and width of images in pixels (None: unknown); None if
    `weights.find` finds them.
    """

    name: str
    build: Build
    normalisation: Statistics
    resolution: int
    rename: Callable[[str], str] = str

    surplus: tuple[str, ...] = ()
    pretrained: Callable[[int | None], dict[str, torch.Tensor]] | None = None

    def built(self, num_classes: int, resolution: int | None, seed: int) -> nn.Module:
        """Return what its function returns; the function gets the seed if it has such a parameter."""
        own = {"seed": seed} if _takes_seed(self.build) else {}
        return self.build(num_classes, resolution, **own)


def _takes_seed(build: Build) -> bool:
    try:
        return "seed" in inspect.signature(build).parameters
    except (TypeError, ValueError):  # functions written in C may not tell
        return False


# What torchvision's files of weights may have besides the network's own: heads used in training only.
_SURPLUS = {"googlenet": ("aux1.", "aux2."), "inception_v3": ("AuxLogits.",)}
# Weights made for pixels in -1..1. googlenet and inception convert them in a part that is left out here.
_HALVES = {"googlenet", "inception_v3", "efficientnet_v2_l"}
_DENSE_LAYER = re.compile(r"(.*denselayer\d+\.(?:norm|relu|conv))\.([12]\..*)")
_NETWORKS: dict[str, Network] = {}


def register(
    name: str,
    build: Build,
    *,
    normalisation: Statistics = IMAGENET,
    resolution: int = RESOLUTION,
    rename: Callable[[str], str] = str,
    aliases: Sequence[str] = (),
) -> None:
    """Let `models.build` and fleet files name a network; a name already taken is replaced.

    build: takes the number of classes and the height and width of images in pixels (None: unknown), and returns the
        network with initial weights. torch's random state is seeded before and restored afterwards; a parameter
        called
        `seed` gets that seed.
    normalisation: (mean, std) of each channel for pixels in 0..1. resolution: height and width in pixels, for which
    the
        weights are made. rename: from a key in a file of weights to the network's own. aliases: further names.
    """
    network = Network(name, build, normalisation, resolution, rename)
    _NETWORKS.update(dict.fromkeys((name, *aliases), network))


def names() -> list[str]:
    """Return all names: those registered, in order, then torchvision's classifiers."""
    return [*_NETWORKS, *_torchvision_names()]


def find(name: str) -> Network:
    """Return the network of that name. Raises ConfigError, naming the nearest ones, for an unknown name."""
    if name in _NETWORKS:
        return _NETWORKS[name]
    if libraries.is_library(name):
        of_library: Network = libraries.find(KIND, name)
        return replace(of_library, name=name)
    if own_code.is_own(name):
        return _own(name)
    if name not in _torchvision_names():
        raise ConfigError(f"unknown network {name!r}; {nearest(name, names())}")
    resolution = 299 if name == "inception_v3" else RESOLUTION
    statistics = HALF if name in _HALVES else IMAGENET
    return Network(
        name, partial(_torchvision, name), statistics, resolution, _renamed, _SURPLUS.get(name, ())
    )


def _own(name: str) -> Network:
    """Return the network built by a user's function, or the Network object that the name refers to."""
    found = own_code.load(name)
    if isinstance(found, Network):
        return replace(found, name=name)
    seed = {"seed": 0} if callable(found) and _takes_seed(found) else {}
    own_code.check_call(name, found, FORM, 0, RESOLUTION, **seed)
    return Network(name, found, IMAGENET, RESOLUTION)


def _renamed(key: str) -> str:
    """Return today's key for one in torchvision's files: densenet's "denselayer1.norm.1" is "denselayer1.norm1"."""
    old = _DENSE_LAYER.fullmatch(key)
    return f"{old[1]}{old[2]}" if old else key


def _torchvision_names() -> list[str]:
    from fed_asi.models.torchvision_shim import torchvision

    listed: list[str] = torchvision.models.list_models(module=torchvision.models)
    return listed


def _torchvision(name: str, num_classes: int, resolution: int | None) -> nn.Module:
    from fed_asi.models.torchvision_shim import torchvision

    extra = dict(_EXTRA.get(name, {}))
    if name.startswith("vit_") and resolution is not None:
        extra["image_size"] = resolution
    model: nn.Module = torchvision.models.get_model(name, weights=None, num_classes=num_classes, **extra)
    return model
