"""[sharding]: the scheme by its name, and the scheme's own settings as further keys."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import MISSING, fields
from dataclasses import Field as DataclassField
from typing import Annotated, Any, get_type_hints

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from fed_asi.data import shards
from fed_asi.data.schemes import Scheme
from fed_asi.errors import ConfigError
from fed_asi.fleets import problems as wording
from fed_asi.fleets.section import Count, Section


class ShardingConfig(Section):
    """How the training images are spread over the devices.

    The keys below are there, with these defaults, for every scheme that has a setting of the name. Further
    keys are the scheme's own; what they must be its dataclass says (`scheme_of`, `problems`).
    """

    model_config = ConfigDict(extra="allow")

    scheme: str = "dirichlet"  # a name of data/shards.py
    alpha: Annotated[float, Field(gt=0)] = 0.5  # dirichlet: small is uneven
    minimum: Count = 1  # images every device has at least
    classes_per_device: Count = 2  # scheme "classes"

    @property
    def given(self) -> dict[str, Any]:
        """The keys of the table and their values, the scheme's own as they stand in the file."""
        return {**{key: getattr(self, key) for key in type(self).model_fields}, **(self.model_extra or {})}


def scheme_of(config: ShardingConfig) -> Scheme:
    """Return the scheme with its settings. Raises ConfigError with every problem of the table."""
    found, wrong = _read(config)
    if found is None:
        raise ConfigError(wrong)
    return found


def problems(config: ShardingConfig) -> list[str]:
    """Return what is wrong with the scheme's name and its own keys, a line each."""
    return _read(config)[1]


def _read(config: ShardingConfig) -> tuple[Scheme | None, list[str]]:
    if config.scheme not in shards.names():
        return None, [wording.unknown_value("sharding.scheme", config.scheme, shards.names())]
    scheme = shards.find(config.scheme)
    values, wrong = _values(config, scheme)
    if wrong:
        return None, wrong
    try:
        return scheme(**values), []
    except (ConfigError, ValueError) as error:
        return None, [f"sharding: {error}"]


def _values(config: ShardingConfig, scheme: type[Scheme]) -> tuple[dict[str, Any], list[str]]:
    """Return the values of a scheme's settings by field, and a line for each key that is wrong or missing."""
    settings = {_key(one): one for one in fields(scheme) if one.init}  # type: ignore[arg-type]
    given, values = config.given, {}
    wrong = list(_unknown(config, settings))
    for key, one in settings.items():
        try:
            if key in given:
                values[one.name] = _value(scheme, one, given[key])
            elif one.default is MISSING and one.default_factory is MISSING:
                wrong.append(wording.missing(f"sharding.{key}"))
        except ValidationError as error:
            places = wording.by_place(error.errors())
            wrong += [wording.line({**at, "loc": ("sharding", key, *at["loc"])}) for at in places]
    return values, wrong


def _key(one: DataclassField[Any]) -> str:
    return str(one.metadata.get("key", one.name))


def _unknown(config: ShardingConfig, settings: dict[str, Any]) -> Iterator[str]:
    known = {*type(config).model_fields, *settings}
    for key in config.given:
        if key not in known:
            yield wording.unknown_key(wording.place(("sharding", key)), key, known)


def _value(scheme: type[Scheme], one: DataclassField[Any], value: Any) -> Any:
    """Return a value as its field's type has it; by way of JSON, where a list is also a tuple or a set."""
    hint = get_type_hints(scheme, include_extras=True)[one.name]
    adapter: TypeAdapter[Any] = TypeAdapter(hint, config=ConfigDict(allow_inf_nan=False))
    return adapter.validate_json(json.dumps(value, default=str), strict=True)
