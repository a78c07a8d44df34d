"""Networks by name, with their pretrained weights and the head replaced."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from fed_asi.errors import ConfigError, nearest
from fed_asi.models import mcunet
from fed_asi.models import weights as _weights

Statistics = tuple[tuple[float, float, float], tuple[float, float, float]]

_ALIASES = {"mcunet": "mcunet-in1"}
_HALF: Statistics = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
_IMAGENET: Statistics = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
# Networks whose constructor would add auxiliary heads, or an initialisation that takes a minute.
_EXTRA: dict[str, dict[str, Any]] = {
    "googlenet": {"aux_logits": False, "init_weights": False},
    "inception_v3": {"aux_logits": False, "init_weights": False},
}
# mcunet-in1 was searched for at 96, but its published weights were made for 128.
_PUBLISHED_RESOLUTION = {
    "mcunet-in0": 48,
    "mcunet-in1": 128,
    "mcunet-in2": 160,
    "mcunet-in3": 176,
    "mcunet-in4": 160,
    "tiny": 32,
    "inception_v3": 299,
}


def names() -> list[str]:
    """Return the names `build` knows: this package's networks, then torchvision's classifiers."""
    return [*_ALIASES, *mcunet.FAMILY, *_torchvision_names()]


def _torchvision_names() -> list[str]:
    from fed_asi.models.torchvision_shim import torchvision

    listed: list[str] = torchvision.models.list_models(module=torchvision.models)
    return listed


def canonical(name: str) -> str:
    """Return the network's one name ("mcunet" is "mcunet-in1"); raises ConfigError with the nearest ones."""
    name = _ALIASES.get(name, name)
    if name not in mcunet.FAMILY and name not in _torchvision_names():
        raise ConfigError(f"unknown network {name!r}; {nearest(name, names())}")
    return name


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
    name = canonical(name)
    path = _weights.find(name, weights, weights_dir) if weights is not None else None
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        model = (
            mcunet.build(name, num_classes)
            if name in mcunet.FAMILY
            else _torchvision(name, num_classes, resolution)
        )
    if path is not None:
        _weights.load_(model, _weights.read(path), head_name(model), mcunet.from_published)
    return model


def _torchvision(name: str, num_classes: int, resolution: int | None) -> nn.Module:
    from fed_asi.models.torchvision_shim import torchvision

    extra = dict(_EXTRA.get(name, {}))
    if name.startswith("vit_") and resolution is not None:
        extra["image_size"] = resolution
    model: nn.Module = torchvision.models.get_model(name, weights=None, num_classes=num_classes, **extra)
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
    return _HALF if canonical(name) in mcunet.FAMILY else _IMAGENET


def resolution_of(name: str) -> int:
    """Return the height and width in pixels that the network's weights are published for."""
    return _PUBLISHED_RESOLUTION.get(canonical(name), 224)
