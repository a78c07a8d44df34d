"""Networks by name, with their pretrained weights and the head replaced."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from fed_asi import own_code
from fed_asi.compression.graph import in_mode
from fed_asi.errors import ConfigError, FedAsiError
from fed_asi.models import libraries as libraries
from fed_asi.models import mcunet as mcunet
from fed_asi.models import registry
from fed_asi.models import weights as _weights
from fed_asi.models.registry import Network, Statistics, names, register

__all__ = [
    "Network",
    "build",
    "canonical",
    "check_takes",
    "head_name",
    "names",
    "normalisation",
    "register",
    "resolution_of",
]


def canonical(name: str) -> str:
    """Return the canonical name of a network ("mcunet" is "mcunet-in1"). Raises ConfigError, naming the nearest."""
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

    weights: None, "imagenet" or a path. "imagenet" weights come from weights_dir, FED_ASI_WEIGHTS_DIR, or the
    publisher; for a network of another library, from that library. The head keeps its pretrained weights only if it has
    that many classes.
    resolution: needed only by networks that are built for one image size, such as vision transformers.
    seed: of the initial weights; torch's global random state does not change.
    Raises ConfigError for an unknown name or one that cannot be built so, WeightsError for weights that are missing,
    not finite, or of another network.
    """
    network = registry.find(name)
    downloads = weights == "imagenet" and network.pretrained is not None
    path = None if weights is None or downloads else _weights.find(network.name, weights, weights_dir)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        model = _built(network, num_classes, resolution, seed)
        state = network.pretrained(resolution) if downloads and network.pretrained is not None else None
    if path is not None:
        state = _weights.read(path)
    if state is not None:
        _weights.load_(model, state, head_name(model), network.rename, network.surplus)
    return model


def _built(network: registry.Network, num_classes: int, resolution: int | None, seed: int) -> nn.Module:
    """Return what a network's function returns; whatever it raises becomes one line that names the network."""
    called = own_code.shown_name(network.name)
    try:
        model = network.built(num_classes, resolution, seed)
    except FedAsiError:
        raise
    except Exception as error:  # constructors of torchvision, or user code, may raise anything
        pixels = "" if resolution is None else f" and {resolution} x {resolution} pixels"
        reason = (str(error).splitlines() or [""])[0] or type(error).__name__
        raise ConfigError(
            f"network {called!r} cannot be built for {num_classes} classes{pixels}: {reason[:200]}"
            f"{own_code.place_of(error) or f'; its weights are made for {network.resolution} pixels'}"
        ) from error
    if not isinstance(model, nn.Module):
        raise ConfigError(
            f"network {called!r}: its function returned {type(model).__name__}, not a torch.nn.Module"
        )
    return model


def head_name(model: nn.Module) -> str:
    """Return the name of the classifier: the last Linear, or the last Conv2d if there is no Linear."""
    for kind in (nn.Linear, nn.Conv2d):
        found: list[str] = [name for name, module in model.named_modules() if isinstance(module, kind)]
        if found:
            return found[-1]
    raise ConfigError("the network has no Linear or Conv2d layer, so no head")


def check_takes(model: nn.Module, name: str, num_classes: int, resolution: int) -> None:
    """Raise ConfigError unless the network returns finite scores (1, num_classes) for one image of the resolution.

    The network is run once, in eval mode, and not changed. The error names the network and the pixels.
    """
    example = torch.zeros(1, 3, resolution, resolution)
    what = f"network {own_code.shown_name(name)!r} at {resolution} x {resolution} pixels"
    made_for = resolution_of(name)
    hint = f"its weights are made for {made_for} pixels" if resolution < made_for else "use another network"
    if own_code.is_own(name):
        hint = "correct its function, or choose another model.resolution"
    try:
        with in_mode(model, training=False), torch.no_grad():
            scores = model(example)
    except Exception as error:  # whatever its forward raises
        reason = (str(error).splitlines() or [""])[0] or type(error).__name__
        raise ConfigError(
            f"{what}: it cannot take such images ({reason[:200]}{own_code.place_of(error)}); {hint}"
        ) from error
    if not isinstance(scores, torch.Tensor) or scores.shape != (1, num_classes):
        found = tuple(scores.shape) if isinstance(scores, torch.Tensor) else type(scores).__name__
        raise ConfigError(f"{what}: it returns {found} for one image, not scores of (1, {num_classes})")
    if not scores.isfinite().all():
        raise ConfigError(f"{what}: its scores of a grey image are not finite; are its weights damaged?")


def normalisation(name: str) -> Statistics:
    """Return (mean, std) of each channel, for pixels in 0..1, with which the weights were trained."""
    return registry.find(name).normalisation


def resolution_of(name: str) -> int:
    """Return the height and width, in pixels, for which the weights of the network are published."""
    return registry.find(name).resolution
