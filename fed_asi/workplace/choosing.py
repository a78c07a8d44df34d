"""The choice of a storage format for frozen weights where the file leaves it open: `[storage] frozen = "any"`.

The whole fleet uses one format, as features come from one trunk. Of the formats in which most devices have a plan, it
is the finest whose plans capture as much as those of any other, to one part in a hundred. What a plan captures comes
from a profile of the float32 network, so formats are compared only by the bytes that they leave for training. Their
cost in accuracy is not part of it, which is why a coarser format has to capture more.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from torch import Tensor, fx, nn

from fed_asi.data.images import Images
from fed_asi.errors import BudgetError, ConfigError
from fed_asi.fleets import fleet
from fed_asi.fleets.config import RunConfig
from fed_asi.fleets.resources import Resources
from fed_asi.memory.stored import FORMATS, Format
from fed_asi.planning.device_plans import DevicePlans, plans_of
from fed_asi.planning.profile import Profile
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
    devices = Counter(device.resources for device in fleet.build(config))
    if not any(resources.whole_device for resources in devices):
        return config.stored_as("float32")
    trained = trained_names(model, config)
    trunk, tail = cut_network(config, model, trained)
    made = unchecked_profile(config.stored_as("float32"), tail, trunk, public, trained)
    found = []
    for form in FORMATS:
        one = config.stored_as(form)
        if not _has_form(one, trunk):
            continue
        plans = plans_of(one, made, benches_of(one, trunk, tail))
        if form == "float32" or _has_form(one, _later_trunk(one, model, made, plans)):
            found.append(_served(plans, devices, form))
    most = max(one.devices for one in found)
    if most == 0:
        return config.stored_as(found[-1].form)  # so that its refusal is reported
    able = [one for one in found if one.devices == most]
    return config.stored_as(able[finest([one.worth for one in able])].form)


@dataclass(frozen=True, slots=True)
class _Served:
    """A format, how many devices have a plan in it, and the summed worth of their plans."""

    form: Format
    devices: int
    worth: float


def _has_form(config: RunConfig, trunk: fx.GraphModule) -> bool:
    """Return whether a trunk can be stored in the run's format."""
    try:
        check_storage(config, trunk)
    except ConfigError:
        return False
    return True


def _later_trunk(config: RunConfig, model: nn.Module, profile: Profile, plans: DevicePlans) -> fx.GraphModule:
    """Return the trunk extended by those layers behind it that no plan trains."""
    return cut_network(config, model, sorted(layers_of_plans(config, profile, plans)))[0]


def _served(plans: DevicePlans, devices: Counter[Resources], form: Format) -> _Served:
    count, worth = 0, 0.0
    for resources, many in devices.items():
        try:
            worth += many * next(plans.attempts(resources)).plan.value
            count += many
        except BudgetError:
            continue
    return _Served(form, count, worth)
