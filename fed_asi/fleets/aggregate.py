"""[aggregate] and [upload]: strategy and codec by name, with their own settings as further keys."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from fed_asi import codecs, strategies
from fed_asi.codecs import Codec
from fed_asi.fleets.registered import Registered
from fed_asi.fleets.section import Section
from fed_asi.strategies import Conditions, Strategy

_STRATEGIES = Registered("aggregate", "strategy", strategies.names, strategies.find)
_CODECS = Registered("upload", "codec", codecs.names, codecs.find)


class AggregateConfig(Section):
    """How a round's updates are combined, and how they are weighted, tensor by tensor."""

    model_config = ConfigDict(extra="allow")

    strategy: str = "fedavg"  # a name of fed_asi.strategies
    weights: Literal["examples", "captured"] = "examples"  # "captured": examples times gradient captured
    min_fidelity: Annotated[float, Field(ge=0, le=1)] = 0.0  # tensors that captured less are left out

    @property
    def weighted(self) -> bool:
        """Whether updates are weighted by the gradient they captured."""
        return self.weights == "captured" or self.min_fidelity > 0.0


class UploadConfig(Section):
    """How a device's update is encoded for its upload."""

    model_config = ConfigDict(extra="allow")

    codec: str = "plain"  # a name of fed_asi.codecs


def strategy_of(config: AggregateConfig) -> Strategy:
    """Return the strategy with its settings. Raises ConfigError with every problem of the table."""
    found: Strategy = _STRATEGIES.make(config)
    return found


def codec_of(config: UploadConfig) -> Codec:
    """Return the codec with its settings. Raises ConfigError with every problem of the table."""
    found: Codec = _CODECS.make(config)
    return found


def held_copies(aggregate: AggregateConfig, upload: UploadConfig) -> int:
    """Return how many copies of what it trains a device holds besides its step, for strategy and codec."""
    return len(strategy_of(aggregate).holds | codec_of(upload).holds)


def problems(aggregate: AggregateConfig, run: Conditions | None) -> Iterator[str]:
    """Yield what is wrong with the strategy, its keys, and their fit with the rest of the file. run: None: unknown."""
    strategy, wrong = _STRATEGIES.read(aggregate)
    for line in wrong:
        key = line.partition(":")[0].removeprefix("aggregate.")
        owners = strategies.owners_of(key) if "unknown key" in line else []
        of = " and ".join(f'"{name}"' for name in owners)
        yield f'aggregate.{key}: only for {of}; strategy is "{aggregate.strategy}"' if owners else line
    if strategy is not None and run is not None:
        yield from strategy.problems(run)


def upload_problems(upload: UploadConfig) -> list[str]:
    """Return what is wrong with the codec and its keys, a line each."""
    return _CODECS.read(upload)[1]
