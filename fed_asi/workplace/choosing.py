"""The choice of a storage format for frozen weights where the file leaves it open: `[storage] frozen = "any"`.

The whole fleet uses one format, as features come from one trunk. Of the formats in which most devices have a plan, it
is the finest whose plans capture as much as those of any other, to one part in a hundred. What a plan captures comes
from a profile of the float32 network, so formats are compared only by the bytes that they leave for training. Their
cost in accuracy is not part of it, which is why a coarser format has to capture more. Where devices may train at
several resolutions, only the formats in which most of them see the most pixels are compared, as fewer pixels cost more
than eight bits do.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from torch import Tensor, fx, nn

from fed_asi.data.images import Images
from fed_asi.errors import BudgetError, ConfigError
from fed_asi.fleets import fleet
from fed_asi.fleets.config import RunConfig
from fed_asi.fleets.fleet import Fleet
from fed_asi.memory.stored import FORMATS, Format
from fed_asi.planning.device_plans import plans_of
from fed_asi.planning.resolutions import PlansAt, resolutions_of, taken_by
from fed_asi.planning.whole_device import finest
from fed_asi.workplace.benches import benches_of
from fed_asi.workplace.profiling import cut_network, layers_of_plans, trained_names, unchecked_profile
from fed_asi.workplace.storing import check_storage


def with_storage(config: RunConfig, model: nn.Module, public: tuple[Images, Tensor]) -> RunConfig:
    """Return a run's settings with a format chosen; settings that name one are returned as they are.

    model, public: only read. If no device has a RAM or flash limit, fewer bytes gain nothing, and the format is
    float32.
    """
    if config.storage.frozen != "any":
        return config
    devices = fleet.build(config)
    if not any(device.resources.whole_device for device in devices):
        return config.stored_as("float32")
    trained = trained_names(model, config)
    trunk, tail = cut_network(config, model, trained)
    exact = config.stored_as("float32")
    made = {
        pixels: unchecked_profile(exact.seen_at(pixels), tail, trunk, public, trained)
        for pixels in resolutions_of(devices, config.model.resolution)
    }
    found = []
    for form in FORMATS:
        one = config.stored_as(form)
        if not _has_form(one, trunk):
            continue
        plans = {
            pixels: plans_of(at := one.seen_at(pixels), profile, benches_of(at, trunk, tail))
            for pixels, profile in made.items()
        }
        if form == "float32" or _has_form(one, _later_trunk(one, model, plans)):
            found.append(_served(one, plans, devices))
    most = max(one.served for one in found)
    if not any(most):
        return config.stored_as(found[-1].form)  # its refusal is the last word
    able = [one for one in found if one.served == most]
    return config.stored_as(able[finest([one.worth for one in able])].form)


@dataclass(frozen=True, slots=True)
class _Served:
    """A format, how many devices have a plan in it, and the summed worth of their plans.

    served: devices in all, then those at each resolution, the largest first.
    """

    form: Format
    served: tuple[int, ...]
    worth: float


def _has_form(config: RunConfig, trunk: fx.GraphModule) -> bool:
    """Return whether a trunk can be stored in the run's format."""
    try:
        check_storage(config, trunk)
    except ConfigError:
        return False
    return True


def _later_trunk(config: RunConfig, model: nn.Module, plans: PlansAt) -> fx.GraphModule:
    """Return the trunk extended by those layers behind it that no plan trains."""
    return cut_network(config, model, sorted(layers_of_plans(config, plans)))[0]


def _served(config: RunConfig, plans: PlansAt, devices: Fleet) -> _Served:
    taken = taken_by(devices, config.model.resolution, plans)
    kinds = Counter((one.resources, pixels) for one, pixels in zip(devices, taken, strict=True))
    at, worth = Counter[int](), 0.0
    for (resources, pixels), many in kinds.items():
        try:
            worth += many * next(plans[pixels].attempts(resources)).plan.value
            at[pixels] += many
        except BudgetError:
            continue
    counts = (at[pixels] for pixels in sorted(plans, reverse=True))
    return _Served(config.storage.form, (at.total(), *counts), worth)
