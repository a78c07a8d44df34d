"""Networks of timm: "timm:mobilenetv4_conv_small", or with a tag of its weights, "timm:resnet18.a1_in1k"."""

from __future__ import annotations

from functools import partial
from typing import Any

from torch import nn

from fed_asi import libraries
from fed_asi.errors import ConfigError, WeightsError, first_line, nearest
from fed_asi.models.download import hub_or_cache
from fed_asi.models.registry import IMAGENET, KIND, RESOLUTION, Network, Statistics
from fed_asi.texts import clipped


@libraries.register("timm", KIND, package="timm")
def find(name: str) -> Network:
    """Return timm's network of that name, with the resolution of its weights.

    Raises ConfigError, naming the nearest ones, for a name that timm does not have.
    """
    timm = _timm()
    if not timm.is_model(name):
        hint = clipped(nearest(name.partition(".")[0], timm.list_models()), 200)
        raise ConfigError(f"timm has no network {name!r}; {hint}")
    try:
        made_for = timm.get_pretrained_cfg(name)
    except RuntimeError as error:  # for an unknown tag
        raise ConfigError(f"timm:{clipped(name, 100)}: {clipped(first_line(error), 200)}") from error
    sizes = {"img_size"} if getattr(made_for, "fixed_input_size", False) else set[str]()
    resolution = int(made_for.input_size[-1]) if made_for else RESOLUTION
    return Network(
        name,
        partial(_build, name, sizes),
        _statistics(made_for),
        resolution,
        pretrained=partial(_pretrained, name, sizes),
    )


def _statistics(made_for: Any) -> Statistics:
    """Return (mean, std) of each channel for which the weights are made."""
    if made_for is None or len(made_for.mean) != 3:
        return IMAGENET
    return tuple(made_for.mean), tuple(made_for.std)


def _build(name: str, sizes: set[str], num_classes: int, resolution: int | None) -> nn.Module:
    own = {} if resolution is None else dict.fromkeys(sizes, resolution)
    model: nn.Module = _timm().create_model(name, pretrained=False, num_classes=num_classes, **own)
    return model


def _pretrained(name: str, sizes: set[str], resolution: int | None) -> dict[str, Any]:
    """Return the weights, from timm's cache or downloaded, of the network with its original classes.

    Raises WeightsError where there are none or they cannot be downloaded.
    """
    timm = _timm()
    if not timm.get_pretrained_cfg(name) or not timm.get_pretrained_cfg(name).has_weights:
        raise WeightsError(f"timm publishes no weights of {name}; name a path, or train without weights")
    own = {} if resolution is None else dict.fromkeys(sizes, resolution)
    try:
        with hub_or_cache():
            model: nn.Module = timm.create_model(name, pretrained=True, **own)
    except Exception as error:  # timm, its hub and their transports raise many kinds of errors
        raise WeightsError(
            f"no weights of timm:{name} here, and they cannot be downloaded ({clipped(first_line(error), 200)}): "
            "connect to a network, name a path as weights, or train without weights"
        ) from error
    return model.state_dict()


def _timm() -> Any:
    # First, as timm imports torchvision, whose import fails beside some builds of torch.
    import fed_asi.models.torchvision_shim  # noqa: F401, I001
    import timm

    return timm
