"""A table of the fleet file in which one key names a registered class, and further keys are its settings.

A sharding scheme, a strategy and a codec are each a frozen dataclass in a registry. Its fields are its keys, and
their annotations say which values are allowed.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import MISSING, dataclass, fields
from dataclasses import Field as DataclassField
from typing import Any, get_type_hints

from pydantic import ConfigDict, TypeAdapter, ValidationError

from fed_asi import libraries, own_code
from fed_asi.errors import ConfigError
from fed_asi.fleets import problems as wording
from fed_asi.fleets.section import Section


@dataclass(frozen=True, slots=True)
class Registered:
    """The name of a table, the key that names a class, and the registry of classes."""

    table: str
    key: str
    names: Callable[[], list[str]]
    find: Callable[[str], type[Any]]

    def read(self, section: Section) -> tuple[Any, list[str]]:
        """Return the object that the table describes, or None, and a line for each problem."""
        name = str(getattr(section, self.key))
        where = f"{self.table}.{self.key}"
        elsewhere = own_code.is_own(name) or libraries.is_library(name)
        if name not in self.names() and not elsewhere:
            return None, [wording.unknown_value(where, name, self.names())]
        try:
            cls = self.find(name)
        except ConfigError as error:
            return None, [f"{where}: {error}"]
        values, wrong = self._own_values(section, cls)
        if wrong:
            return None, wrong
        try:
            return cls(**values), []
        except (ConfigError, ValueError) as error:
            return None, [f"{self.table}: {error}"]

    def make(self, section: Section) -> Any:
        """Return the object that the table describes. Raises ConfigError with every problem of the table."""
        found, wrong = self.read(section)
        if found is None:
            raise ConfigError(wrong)
        return found

    def _own_values(self, section: Section, cls: type[Any]) -> tuple[dict[str, Any], list[str]]:
        """Return the settings by field, and a line for each key that is wrong or missing."""
        settings = _settings(cls)
        given, values = given_keys(section), dict[str, Any]()
        wrong = list(self._unknown(section, settings))
        for key, one in settings.items():
            try:
                if key in given:
                    values[one.name] = _value(cls, one, given[key])
                elif one.default is MISSING and one.default_factory is MISSING:
                    wrong.append(wording.missing(f"{self.table}.{key}"))
            except ValidationError as error:
                places = wording.by_place(error.errors())
                wrong += [wording.line({**at, "loc": (self.table, key, *at["loc"])}) for at in places]
        return values, wrong

    def _unknown(self, section: Section, settings: dict[str, Any]) -> Iterator[str]:
        known = {*type(section).model_fields, *settings}
        for key in given_keys(section):
            if key not in known:
                yield wording.unknown_key(wording.place((self.table, key)), key, known)


def given_keys(section: Section) -> dict[str, Any]:
    """Return the keys of a table with their values; undeclared ones as they are in the file."""
    return {
        **{key: getattr(section, key) for key in type(section).model_fields},
        **(section.model_extra or {}),
    }


def _settings(cls: type[Any]) -> dict[str, DataclassField[Any]]:
    return {str(one.metadata.get("key", one.name)): one for one in fields(cls) if one.init}


def _value(cls: type[Any], one: DataclassField[Any], value: Any) -> Any:
    """Return a value in the type of its field, converted through JSON, where a list may also be a tuple or set."""
    hint = get_type_hints(cls, include_extras=True)[one.name]
    adapter: TypeAdapter[Any] = TypeAdapter(hint, config=ConfigDict(allow_inf_nan=False))
    return adapter.validate_json(json.dumps(value, default=str), strict=True)
