"""The base of all tables of a fleet file, and value types that several of them share."""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from fed_asi.errors import ConfigError
from fed_asi.units import parse_bytes, shown


class Section(BaseModel):
    """A table of a fleet file: frozen, strict in its types, without unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


def _bytes(value: Any) -> int | None:
    try:
        return parse_bytes(value)
    except ConfigError as error:
        raise ValueError(str(error)) from error


Bytes = Annotated[int | None, BeforeValidator(_bytes)]


def _size(value: Any) -> Any:
    if value is None:
        return None
    found = _bytes(value)
    if found is None:
        raise ValueError("must be a size; leave the key out where there is no limit")
    return found


Size = Annotated[int | None, BeforeValidator(_size)]  # None: not given


MOST = 2**63 - 1  # the largest integer of the records, of numpy and of torch
Whole = Annotated[int, Field(ge=0, le=MOST)]
Count = Annotated[int, Field(ge=1, le=MOST)]
MOST_RATE = 1e12  # far below the largest float32, in which training computes
Rate = Annotated[float, Field(gt=0, le=MOST_RATE)]


def _partition_id(value: Any) -> Any:
    """Return the number of a device; as a key of a table it is text."""
    if isinstance(value, str):
        if re.fullmatch(r"\s*[0-9]{1,19}\s*", value) is None:
            raise ValueError(f"must be a whole number from 0 up, not {shown(value)}")
        return int(value)
    return value


PartitionId = Annotated[int, BeforeValidator(_partition_id), Field(ge=0, le=MOST)]
