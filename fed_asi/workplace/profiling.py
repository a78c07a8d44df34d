"""Which layers a run may train, where its network is cut, and the profile its plans are made from."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, fx, nn

from fed_asi import models
from fed_asi.compression import cut
from fed_asi.compression.tune import layers_named, tune_last_
from fed_asi.data.features import trunk_fingerprint
from fed_asi.data.images import Images, to_batch
from fed_asi.errors import ConfigError
from fed_asi.fleets import fleet, over_budget
from fed_asi.fleets.config import RunConfig
from fed_asi.fleets.pace_checks import asks_time
from fed_asi.fleets.resources import Resources
from fed_asi.layers.copying import copied
from fed_asi.methods import Family, Vanilla
from fed_asi.planning import calibration
from fed_asi.planning.device_plans import DevicePlans, choose_layers, micro_batches_needed, plans_of
from fed_asi.planning.profile import Profile
from fed_asi.planning.resolutions import PlansAt, taken_by, used_at, why_none
from fed_asi.waiting import tell
from fed_asi.workplace.benches import Benches
from fed_asi.workplace.kept_profiles import kept_profile, tensor_fingerprint


def is_cut(config: RunConfig) -> bool:
    """Return whether the cut is final: no profile can remove layers from the trained ones."""
    return config.method.calibration != "server" or not choose_layers(config.method)


def cut_network(
    config: RunConfig, model: nn.Module, trained: Sequence[str]
) -> tuple[fx.GraphModule, fx.GraphModule]:
    """Return (trunk, tail): the frozen part before the first trained layer, in its quick form, and the rest."""
    resolution = config.model.resolution
    trunk, tail = cut.cut(model, trained, torch.zeros(1, 3, resolution, resolution))
    return cut.folded(trunk), tail


def layers_of_plans(config: RunConfig, plans: PlansAt) -> set[str]:
    """Return the layers that some device of the fleet will train in some round; all of them if that is unknown.

    plans: by resolution.

    Before the first round, plans from the server's profile for the fleet's own budgets are known; but not if
    they depend on a device's time, which depends on the cut.
    """
    own, used = config.model.resolution, set[str]()
    if not is_cut(config) and not asks_time(config):
        devices = fleet.build(config)
        for pixels, every in used_at(devices, taken_by(devices, own, plans)).items():
            used |= plans[pixels].layers_of(every)
    return used or {layer.name for layer in plans[own].profile.layers}


def plans_at(config: RunConfig, profile: Profile, benches: Benches, several: bool) -> DevicePlans:
    """Return the plans of a run's resolution. several: whether there are others, so that errors name this one."""
    pixels = config.model.resolution
    return plans_of(config, profile, benches, f"at {pixels} x {pixels} pixels" if several else "")


def check_plans(config: RunConfig, plans: PlansAt) -> None:
    """Raise the error that every device would meet in every round, unless plans can be made.

    A budget below the smallest plan is not an error: that device is left out, with its cause. So is a device whose RAM
    or flash is too small, as long as another device has a plan. plans: by resolution.
    """
    devices, too_small, fits = fleet.build(config), list[str](), False
    at = used_at(devices, taken_by(devices, config.model.resolution, plans))
    every = [(resources, plans[pixels]) for pixels, found in at.items() for resources in found]
    for resources, here in sorted(every, key=lambda one: _ram_and_flash(one[0])):
        error = why_none(here, resources)
        fits = fits or error is None
        too_small += [str(error)] if error is not None and resources.whole_device else []
    if too_small and not fits:
        raise ConfigError([f"no device can do a step: {one}" for one in dict.fromkeys(too_small)])


def _ram_and_flash(resources: Resources) -> tuple[float, float]:
    ram, flash = (math.inf if one is None else one for one in (resources.ram_bytes, resources.flash_bytes))
    return ram, flash


def trained_names(model: nn.Module, config: RunConfig) -> Sequence[str]:
    """Return the names of all layers or parameters that any device may train; the model is not changed.

    Raises ConfigError where method.layers asks for more layers than there are, or names one that does not exist.
    """
    wanted = config.method.layers
    try:
        named = layers_named(model, wanted) if isinstance(wanted, tuple) else []
        if not config.method.families:
            return tune_last_(copied(model), 0)
        if isinstance(wanted, int):
            return tune_last_(copied(model), wanted)
        if named:
            return list(dict.fromkeys([*named, models.head_name(model)]))
        return [name for name, _ in model.named_parameters()]
    except ConfigError as error:
        raise ConfigError([f"method.layers: {problem}" for problem in error.problems]) from error


def trained_bytes(model: nn.Module, config: RunConfig) -> int:
    """Return the bytes of all that any device may train: the most that a round sends of the network."""
    layers = tuple(f"{name}." for name in trained_names(model, config))  # matches a parameter's own name, too
    return sum(p.nbytes for name, p in model.named_parameters() if f"{name}.".startswith(layers))


def batch_of(config: RunConfig, images: Images) -> Tensor:
    """Return images as the network reads them, (N, 3, H, W)."""
    mean, std = models.normalisation(config.model.name)
    return to_batch(images[:], config.model.resolution, mean, std)


def calibrating(images: int) -> str:
    """Return the text that progress shows during calibration."""
    return f"calibration on {images} public images"


def profile_of(
    config: RunConfig,
    tail: fx.GraphModule,
    trunk: fx.GraphModule,
    public: tuple[Images, Tensor],
    trained: Sequence[str],
    benches: Benches,
) -> Profile:
    """Return the profile of the tail on the server's public images, for every micro-batch that a plan may use.

    Raises ConfigError where no plan could be made from it, whatever the budget.
    """
    made = unchecked_profile(config, tail, trunk, public, trained)
    check_plans(config, {config.model.resolution: plans_at(config, made, benches, several=False)})
    return made


def unchecked_profile(
    config: RunConfig,
    tail: fx.GraphModule,
    trunk: fx.GraphModule,
    public: tuple[Images, Tensor],
    trained: Sequence[str],
) -> Profile:
    """Return the same, whether or not plans can be made from it."""
    count = config.method.calibration_images
    with torch.inference_mode():
        features = trunk(batch_of(config, public[0][:count]))
    needs = {device.resources for device in fleet.build(config)}
    # A device of a federated calibration may have fewer images than a micro-batch.
    smaller = over_budget.goes_smaller(config.method.over_budget) or config.method.calibration != "server"
    x, y = features.clone(), public[1][:count]
    micro_batches = sorted(b for b in micro_batches_needed(needs, smaller=smaller) if b <= len(features))
    methods = config.method.families or (Family(Vanilla),)
    asked: dict[str, Any] = {
        "trained": list(trained),
        "micro_batches": micro_batches,
        "selection": "published" if config.method.grid == "published" else "candidates",
        "seed": config.seed,
        "centered": config.method.may_center,
    }
    about = asked | {
        "tail": trunk_fingerprint(tail),
        "images": [tensor_fingerprint(x), tensor_fingerprint(y)],
        "methods": [f"{one.method.__module__}.{one.method.__qualname__} {one}" for one in methods],
    }
    progress = partial(tell, calibrating(len(x)))
    return kept_profile(
        about, partial(calibration.profile, tail, x, y, methods=methods, progress=progress, **asked)
    )
