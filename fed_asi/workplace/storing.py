"""A run's network with what is frozen as its devices store it, and how that is found again when it is opened."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import fx

from fed_asi.compression import cut
from fed_asi.data.images import Images
from fed_asi.errors import ConfigError, UnsupportedLayerError
from fed_asi.fleets import fleet
from fed_asi.fleets.config import RunConfig
from fed_asi.storage.frozen import store_all_
from fed_asi.storage.trunk import calibrated, problems, stored_trunk
from fed_asi.workplace.profiling import batch_of


@dataclass(frozen=True, slots=True)
class Stored:
    """A network in two: a trunk in its quick form that computes in the run's format, and the tail.

    ranges: of an int8 trunk, by node, from which `quick_trunk` makes the same trunk again.
    """

    trunk: fx.GraphModule
    ranges: Mapping[str, tuple[float, float]] | None
    tail: fx.GraphModule


def stored(config: RunConfig, parts: tuple[fx.GraphModule, fx.GraphModule], public: Images) -> Stored:
    """Return a network's parts as they are handed out in the run's format, in which devices find them in flash.

    parts: of `cut_network`; weights of the tail are changed in place. public: the server's images.
    Raises ConfigError for what the format cannot hold.
    """
    trunk, tail = parts
    found = Stored(*trunk_in_format(config, trunk, public), tail)
    tail_in_format_(config, tail)
    return found


def tail_in_format_(config: RunConfig, tail: fx.GraphModule) -> None:
    """Make the weights of a tail numbers that the run's format holds, as they are handed out.

    Raises ConfigError for what the format cannot hold.
    """
    try:
        store_all_(tail, config.storage.form)
    except UnsupportedLayerError as error:
        raise ConfigError(f"storage.frozen: {error}") from error


def trunk_in_format(
    config: RunConfig, trunk: fx.GraphModule, public: Images
) -> tuple[fx.GraphModule, Mapping[str, tuple[float, float]] | None]:
    """Return a trunk in the run's format, and its ranges on images of the run's resolution where it is in eight bits.

    trunk: in its quick form, only read. Raises ConfigError for what the format cannot hold.
    """
    form, ranges = config.storage.form, None
    try:
        if form == "int8":
            images = public[: config.storage.calibration_images]
            ranges = calibrated(trunk, batch_of(config, images))
        return stored_trunk(trunk, form, ranges), ranges
    except UnsupportedLayerError as error:
        raise ConfigError(f"storage.frozen: {error}") from error


def storage_notes(config: RunConfig, public: int, *, chosen: bool = False) -> list[str]:
    """Return a line for a run's readers where its devices store what is frozen, or what is trained, otherwise.

    public: images there are. chosen: whether the format was left to the plans.
    """
    form, images = config.storage.form, min(config.storage.calibration_images, public)
    seen = f", ranges of activations from {images} public images" if form == "int8" else ""
    why = _why(config) if chosen else ""
    half = config.storage.trained != "float32"
    return [
        *(
            [f"storage: frozen weights are stored as {form}{seen}{why}"]
            if form != "float32" or chosen
            else []
        ),
        *(
            ["storage: trained weights are kept as float16, each move rounded up or down at random"]
            if half
            else []
        ),
    ]


def moving_notes(config: RunConfig) -> list[str]:
    """Return a line for a run's readers where weights that move within a batch are simulated by an approximation."""
    asked = config.compute.gradients_at
    if asked == "micro-batch":
        return []
    whose = (
        "a batch are computed with the weights from its"
        if asked == "batch"
        else (f"{asked} images are computed with the weights from their")
    )
    named = f'"{asked}"' if asked == "batch" else asked
    return [
        f"gradients: but for each device's first step, those of {whose} start; a device moves them within it "
        f"(compute.gradients_at = {named})"
    ]


def _why(config: RunConfig) -> str:
    if any(device.resources.whole_device for device in fleet.build(config)):
        return ", in which most devices have a plan, and plans capture most"
    return ", as no device says its RAM or flash"


def quick_trunk(config: RunConfig, trunk: fx.GraphModule, manifest: Mapping[str, Any]) -> fx.GraphModule:
    """Return a trunk as it was cut in its quick form, in the run's format. manifest: with its ranges."""
    return stored_trunk(cut.folded(trunk), config.storage.form, manifest.get("ranges"))


def check_storage(config: RunConfig, trunk: fx.GraphModule) -> None:
    """Raise ConfigError, a problem a layer, where a trunk as it was cut has no form in the run's format."""
    if config.storage.frozen in ("float32", "any"):
        return
    quick = cut.folded(trunk)
    if config.storage.form == "int8":
        if found := problems(quick):
            raise ConfigError(
                [
                    f'storage.frozen: "int8": {one}; use "float16" or "float32", or train that layer'
                    for one in found
                ]
            )
        return
    try:
        stored_trunk(quick, config.storage.form)
    except UnsupportedLayerError as error:
        raise ConfigError(f"storage.frozen: {error}") from error
