"""A run's network in two parts, stored as on its devices, and its profiles: cut where its plans need it.

A fleet whose devices may train at several resolutions has one network, cut at one place. What depends on the size of
an image is there once for each resolution: the ranges of a trunk in eight bits, the profile, and where steps are
counted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor, fx, nn

from fed_asi.data.images import Images
from fed_asi.fleets import fleet
from fed_asi.fleets.config import RunConfig
from fed_asi.layers.copying import copied
from fed_asi.planning.device_plans import DevicePlans
from fed_asi.planning.profile import Profile
from fed_asi.planning.resolutions import resolutions_of, taken_by
from fed_asi.workplace.benches import benches_of
from fed_asi.workplace.profiling import (
    check_plans,
    cut_network,
    layers_of_plans,
    plans_at,
    trained_names,
    unchecked_profile,
)
from fed_asi.workplace.storing import tail_in_format_, trunk_in_format

Parts = tuple[fx.GraphModule, fx.GraphModule]


@dataclass(frozen=True, slots=True)
class AtResolution:
    """What of a run depends on the resolution of its images. config: of a run at this one.

    ranges: of a trunk in eight bits, from which the same trunk is made again. plans: from the profile.
    """

    config: RunConfig
    trunk: fx.GraphModule
    ranges: Mapping[str, tuple[float, float]] | None
    profile: Profile
    plans: DevicePlans


@dataclass(frozen=True, slots=True)
class Profiled:
    """A network's profiles, and the layers that some device may train.

    own: at the model's resolution. others: at those that some device takes beside it. taken: each device's resolution,
    by partition_id.
    """

    trained: Sequence[str]
    own: AtResolution
    others: Mapping[int, AtResolution]
    taken: Sequence[int]

    def plans_of(self, partition_id: int) -> DevicePlans:
        """Return the plans of a device, at its resolution."""
        return self.others.get(self.taken[partition_id], self.own).plans


def profiled(config: RunConfig, model: nn.Module, public: tuple[Images, Tensor]) -> Profiled:
    """Return the profiles of a network, cut before the first layer that any of its plans trains.

    Raises ConfigError where no device could do a step.
    """
    trained = trained_names(model, config)
    whole = copied(model).state_dict()
    every = _every(config, cut_network(config, model, trained), public, trained)
    layers = every[config.model.resolution].profile.layers
    used = layers_of_plans(config, {pixels: one.plans for pixels, one in every.items()})
    if used < {layer.name for layer in layers}:
        trained = [layer.name for layer in layers if layer.name in used]
        # Weights of the first tail may now belong to the trunk, which is converted from float32.
        model.load_state_dict(whole)
        every = _every(config, cut_network(config, model, trained), public, trained)
    plans = {pixels: one.plans for pixels, one in every.items()}
    taken = taken_by(fleet.build(config), config.model.resolution, plans)
    own = every.pop(config.model.resolution)
    return Profiled(trained, own, {pixels: every[pixels] for pixels in sorted({*taken} & {*every})}, taken)


def _every(
    config: RunConfig, cut: Parts, public: tuple[Images, Tensor], trained: Sequence[str]
) -> dict[int, AtResolution]:
    """Return all that some device may take, checked; weights of the tail are changed in place to what is stored."""
    pixels = resolutions_of(fleet.build(config), config.model.resolution)
    tail_in_format_(config, cut[1])
    found = {one: _at(config.seen_at(one), cut, public, trained, len(pixels) > 1) for one in pixels}
    check_plans(config, {one: at.plans for one, at in found.items()})
    return found


def _at(
    config: RunConfig, parts: Parts, public: tuple[Images, Tensor], trained: Sequence[str], several: bool
) -> AtResolution:
    cut, tail = parts
    trunk, ranges = trunk_in_format(config, cut, public[0])
    profile = unchecked_profile(config, tail, trunk, public, trained)
    plans = plans_at(config, profile, benches_of(config, cut, tail), several)
    return AtResolution(config, trunk, ranges, profile, plans)
