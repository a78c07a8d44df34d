"""What a plan may be asked to use: a method by name, with settings that all its proposals share.

A plan that may use "asi" chooses among many ranks; one that may use "hosvd(epsilon=0.7)" has only that form.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args, get_origin, get_type_hints

from pydantic import TypeAdapter, ValidationError

from fed_asi import own_code
from fed_asi.errors import ConfigError, nearest
from fed_asi.methods import base
from fed_asi.methods.base import LayerInput, Method
from fed_asi.methods.literals import arguments


@dataclass(frozen=True, slots=True)
class Family:
    """The forms of one method that calibration tries and a plan may use."""

    method: type[Method]
    settings: tuple[tuple[str, Any], ...] = ()

    @property
    def kind(self) -> str:
        """The method's kind."""
        return self.method.kind

    def propose(self, seen: LayerInput) -> Iterator[tuple[Method, float | None]]:
        """Yield the forms worth trying for a layer; see `Method.propose`."""
        yield from self.method.propose(seen, **dict(self.settings))

    def value(self) -> Method:
        """Return the one form of a method that its settings fully describe. Raises ConfigError where they do not."""
        return base.make(self.method, dict(self.settings))

    def __str__(self) -> str:
        inside = ", ".join(f"{key}={value!r}" for key, value in self.settings)
        return f"{self.kind}({inside})" if inside else self.kind


Asked = str | Method | type[Method] | Family
_NAMED: dict[str, Family] = {}  # names other than the methods' own, such as "asi-published"


def register_family(name: str, family: Family) -> None:
    """Let `name` stand for the family in fleet files and plans."""
    _NAMED[name] = family


def with_settings(method: type[Method], settings: Mapping[str, Any]) -> Family:
    """Return a method's family. Raises ConfigError for a setting that it does not have, or a wrong value."""
    known = settings_of(method)
    for key, value in settings.items():
        if key not in known:
            hint = nearest(key, known) if known else "it takes none"
            raise ConfigError(f"method {method.kind!r} has no setting {key!r}; {hint}")
        _check_type(method, key, value)
    family = Family(method, tuple(settings.items()))
    if method.must_fit:
        family.value()
    return family


def _check_type(method: type[Method], key: str, value: Any) -> None:
    """Raise ConfigError where a value does not have the type that the setting is annotated with."""
    kind = get_type_hints(method.propose).get(key, Any)
    try:
        TypeAdapter(kind).validate_python(value, strict=True)
    except ValidationError:
        if get_origin(kind) is Literal:
            hint = nearest(str(value), get_args(kind))
            raise ConfigError(f"method {method.kind!r}: unknown {key} {value!r}; {hint}") from None
        name = getattr(kind, "__name__", str(kind))
        raise ConfigError(f"method {method.kind!r}: {key} must be {name}, not {value!r}") from None


def settings_of(method: type[Method]) -> list[str]:
    """Return the settings that a method's proposals take."""
    return [name for name in inspect.signature(method.propose).parameters if name != "seen"]


def default_families() -> tuple[Family, ...]:
    """Return what a plan may use if nothing is asked for."""
    return tuple(Family(cls) for cls in base.KINDS.values() if cls.by_default)


def parse(asked: Asked) -> Family:
    """Return the family meant by a name, a call such as "hosvd(epsilon=0.7)", a method or its class.

    Raises ConfigError, naming the nearest ones.
    """
    if isinstance(asked, Family):
        return asked
    if isinstance(asked, Method):
        known = settings_of(type(asked))
        return with_settings(type(asked), {key: getattr(asked, key) for key in known})
    if isinstance(asked, type):
        return Family(asked)
    if own_code.is_own(asked):
        return Family(base.own(asked))
    name, settings = arguments(asked)
    if name in _NAMED and not settings:
        return _NAMED[name]
    known_names = family_names()
    cls = base.names().get(name.strip().lower().replace("_", "-"))
    if cls is None or not cls.plannable:
        hint = "leave the layer out" if cls is not None else nearest(name, known_names)
        raise ConfigError(f"method {asked!r} is not known to the planner; {hint}")
    return with_settings(cls, settings)


def family_names() -> list[str]:
    """Return the names that `parse` knows, without aliases."""
    return [*(kind for kind, cls in base.KINDS.items() if cls.plannable), *_NAMED]


def families(asked: Asked | Sequence[Asked] | None) -> tuple[Family, ...]:
    """Return the families asked for; all of `default_families` for None. Raises ConfigError with every problem."""
    if asked is None:
        return default_families()
    wanted: Iterable[Asked] = (asked,) if isinstance(asked, (str, Method, type, Family)) else asked
    found, problems = [], []
    for one in wanted:
        try:
            found.append(parse(one))
        except ConfigError as error:
            problems += error.problems
    if problems:
        raise ConfigError(problems)
    return tuple(found)
