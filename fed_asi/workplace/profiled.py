"""A run's network in two parts, stored as on its devices, and its profile: cut where its plans need it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor, fx, nn

from fed_asi.data.images import Images
from fed_asi.fleets.config import RunConfig
from fed_asi.layers.copying import copied
from fed_asi.planning.device_plans import plans_of
from fed_asi.planning.profile import Profile
from fed_asi.workplace.benches import Benches, benches_of
from fed_asi.workplace.profiling import cut_network, layers_of_plans, profile_of, trained_names
from fed_asi.workplace.storing import stored


@dataclass(frozen=True, slots=True)
class Profiled:
    """A network's profile, the layers that some device may train, and the frozen part before them.

    ranges: of a trunk in eight bits, to make the same trunk again. benches: where its steps are counted.
    """

    profile: Profile
    trained: Sequence[str]
    trunk: fx.GraphModule
    ranges: Mapping[str, tuple[float, float]] | None
    benches: Benches


def profiled(config: RunConfig, model: nn.Module, public: tuple[Images, Tensor]) -> Profiled:
    """Return the profile of a network, cut before the first layer that any of its plans trains."""
    trained = trained_names(model, config)
    whole = copied(model).state_dict()
    cut = cut_network(config, model, trained)
    parts, benches = stored(config, cut, public[0]), benches_of(config, *cut)
    profile = profile_of(config, parts.tail, parts.trunk, public, trained, benches)
    used = layers_of_plans(config, profile, plans_of(config, profile, benches))
    if used < {layer.name for layer in profile.layers}:
        trained = [layer.name for layer in profile.layers if layer.name in used]
        # Weights of the first tail may now belong to the trunk, which is converted from float32.
        model.load_state_dict(whole)
        cut = cut_network(config, model, trained)
        parts, benches = stored(config, cut, public[0]), benches_of(config, *cut)
        profile = profile_of(config, parts.tail, parts.trunk, public, trained, benches)
    return Profiled(profile, trained, parts.trunk, parts.ranges, benches)
