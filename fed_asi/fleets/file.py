"""A fleet file on disk -> RunConfig, or every problem it has, at once."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from fed_asi.errors import ConfigError, nearest
from fed_asi.fleets.budgets_csv import add_csv_
from fed_asi.fleets.checks import check
from fed_asi.fleets.config import RunConfig
from fed_asi.fleets.overrides import override_
from fed_asi.fleets.places import place_
from fed_asi.fleets.validation import validate


def load_config(
    path: str | Path,
    overrides: Sequence[str] = (),
    *,
    cpus: int | None = None,
    data_dir: Path | None = None,
) -> RunConfig:
    """Return the settings that a fleet file and `--set key=value` overrides ask for.

    path: a TOML file. overrides: "train.lr=0.1", 'groups.tight.budget="64 KiB"'.
    cpus: how many the machine has; None counts them. data_dir: where data sets lie, else FED_ASI_DATA_DIR.
    Files that it names are absolute paths from here on.
    Raises ConfigError with all problems of the file, its CSV and the overrides together.
    """
    raw = _read_toml(Path(path))
    problems = [problem for text in overrides if (problem := override_(raw, text))]
    problems += _hidden_name(raw, overrides)
    problems += add_csv_(raw, Path(path).parent, _budgets_set(overrides))
    place_(raw, Path(path).parent, data_dir)
    config, broken, found = validate(raw)
    problems += found
    if config is not None:
        problems += check(config, broken, cpus)
    if problems or config is None:
        raise ConfigError(problems)
    return config


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        near = nearest(path.name, [other.name for other in path.parent.glob("*.toml")])
        raise ConfigError(f"no file {path}" + (f"; {near}" if "mean" in near else "")) from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path} is not UTF-8 text") from None
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from None
    except ValueError as error:  # such as a NUL in the name
        raise ConfigError(f"{str(path)!r} cannot be read: {error}") from None
    try:
        return tomllib.loads(text)
    except Exception as error:  # tomllib passes on what Python says of huge numbers and deep lists
        raise ConfigError(f"{path} is not TOML: {(str(error).splitlines() or [''])[0]}") from None


def _hidden_name(raw: Mapping[str, Any], overrides: Sequence[str]) -> Iterator[str]:
    """Yield the problem of a method name on the command line that the file's own `methods` would hide."""
    keys = [text.partition("=")[0].strip() for text in overrides]
    method = raw.get("method")
    if "method.name" in keys and "method.methods" not in keys and isinstance(method, dict):
        forms = method.get("methods")
        if forms is not None:
            yield (
                f"--set method.name: the file's method.methods = {forms} decides the forms, whatever the name; "
                "set method.methods too"
            )


def _budgets_set(overrides: Sequence[str]) -> set[str]:
    """Return the keys of [budgets] that the command line sets."""
    keys = [text.partition("=")[0].strip() for text in overrides]
    return {key.removeprefix("budgets.") for key in keys if key.startswith("budgets.")}
