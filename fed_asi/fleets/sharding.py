"""[sharding]: the scheme by name, with its own settings as further keys."""

from __future__ import annotations

from typing import Annotated

from pydantic import ConfigDict, Field

from fed_asi.data import shards
from fed_asi.data.schemes import Scheme
from fed_asi.fleets.registered import Registered
from fed_asi.fleets.section import Count, Section

_SCHEMES = Registered("sharding", "scheme", shards.names, shards.find)


class ShardingConfig(Section):
    """How the training images are spread over the devices.

    The keys below exist, with these defaults, for every scheme that has a setting of that name. Further keys are the
    scheme's own, checked against its dataclass (`scheme_of`, `problems`).
    """

    model_config = ConfigDict(extra="allow")

    scheme: str = "dirichlet"  # a name of data/shards.py
    alpha: Annotated[float, Field(gt=0)] = 0.5  # dirichlet: small is uneven
    minimum: Count = 1  # the fewest images a device may have
    classes_per_device: Count = 2  # scheme "classes"


def scheme_of(config: ShardingConfig) -> Scheme:
    """Return the scheme with its settings. Raises ConfigError with every problem of the table."""
    found: Scheme = _SCHEMES.make(config)
    return found


def problems(config: ShardingConfig) -> list[str]:
    """Return what is wrong with the scheme's name and its own keys, one line each."""
    return _SCHEMES.read(config)[1]
