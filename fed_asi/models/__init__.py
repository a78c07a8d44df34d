"""Networks by name, with their pretrained weights and the head replaced."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from fed_asi.errors import ConfigError
from fed_asi.models import mcunet as mcunet
from fed_asi.models import registry
from fed_asi.models import weights as _weights
from fed_asi.models.registry import Statistics, names, register

__all__ = ["build", "canonical", "head_name", "names", "normalisation", "register", "resolution_of"]


def canonical(name: str) -> str:
    """Return the network's one name ("mcunet" is "mcunet-in1"); raises ConfigError with the nearest ones."""
    return registry.find(name).name


def build(
    name: str,
    num_classes: int,
    weights: str | Path | None = None,
    resolution: int | None = None,
    *,
    weights_dir: Path | None = None,
    seed: int = 0,
) -> nn.Module:
    """Return the network `name` for images (B, 3, H, W), in training mode, with `num_classes` outputs.

    weights: None, "imagenet" (from weights_dir, FED_ASI_WEIGHTS_DIR, or the publisher), or a path. The head
    keeps the pretrained weights only where the number of classes is theirs.
    resolution: needed only by networks built for one size of image, such as vision transformers.
    seed: of the initial weights; torch's global random state is left as it was.
    Raises ConfigError for an unknown name, WeightsError for weights that are missing or of another network.
    """
    network = registry.find(name)
    path = _weights.find(network.name, weights, weights_dir) if weights is not None else None
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        model = network.build(num_classes, resolution)
    if not isinstance(model, nn.Module):
        raise ConfigError(
            f"network {name!r}: its function returned {type(model).__name__}, not a torch.nn.Module"
        )
    if path is not None:
        _weights.load_(model, _weights.read(path), head_name(model), network.rename)
    return model


def head_name(model: nn.Module) -> str:
    """Return the name of the classifier: the last Linear, or the last Conv2d where there is no Linear."""
    for kind in (nn.Linear, nn.Conv2d):
        found: list[str] = [name for name, module in model.named_modules() if isinstance(module, kind)]
        if found:
            return found[-1]
    raise ConfigError("the network has no Linear or Conv2d layer, so no head")


def normalisation(name: str) -> Statistics:
    """Return (mean, std) a channel, for pixels in 0..1, that the network's weights were trained with."""
    return registry.find(name).normalisation


def resolution_of(name: str) -> int:
    """Return the height and width in pixels that the network's weights are published for."""
    return registry.find(name).resolution
