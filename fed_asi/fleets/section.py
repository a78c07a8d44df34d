"""What the tables of a fleet file are made of: their base, and the types of values that many of them share."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from fed_asi.errors import ConfigError
from fed_asi.units import parse_bytes


class Section(BaseModel):
    """A table of a fleet file: frozen, its types taken at their word, unknown keys refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


def _bytes(value: Any) -> int | None:
    try:
        return parse_bytes(value)
    except ConfigError as error:
        raise ValueError(str(error)) from error


Bytes = Annotated[int | None, BeforeValidator(_bytes)]


Count = Annotated[int, Field(ge=1)]


PartitionId = Annotated[int, Field(ge=0, strict=False)]
