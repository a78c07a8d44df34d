"""A fleet file on disk -> RunConfig, or every problem it has, at once."""

from __future__ import annotations

import tomllib
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from fed_asi.errors import ConfigError, nearest
from fed_asi.fleets.budgets_csv import add_csv_
from fed_asi.fleets.checks import check
from fed_asi.fleets.config import RunConfig
from fed_asi.fleets.overrides import override_
from fed_asi.fleets.own_names import pin_
from fed_asi.fleets.places import place_
from fed_asi.fleets.validation import validate


def load_config(
    path: str | Path,
    overrides: Sequence[str] = (),
    *,
    cpus: int | None = None,
    data_dir: Path | None = None,
) -> RunConfig:
    """Return the settings in a fleet file, with overrides by `--set key=value`.

    path: a TOML file. overrides: "train.lr=0.1", 'groups.tight.budget="64 KiB"'.
    cpus: how many the machine has; None counts them. data_dir: where data sets are, else FED_ASI_DATA_DIR.
    Paths in the file are made absolute, and the text of code files is included. That code is run, to check that it
    has the objects that are named.
    Raises ConfigError with all problems of the file, its CSV and the overrides together.
    """
    raw = read_toml(Path(path))
    problems = [problem for text in overrides if (problem := override_(raw, text))]
    keys = [text.partition("=")[0].strip() for text in overrides]
    return config_of(raw, Path(path).parent, keys, problems, cpus=cpus, data_dir=data_dir)


def config_of(
    raw: dict[str, Any],
    folder: Path,
    keys: Collection[str] = (),
    problems: Sequence[str] = (),
    *,
    said: str = "--set ",
    cpus: int | None = None,
    data_dir: Path | None = None,
) -> RunConfig:
    """Return the settings in a fleet file's content, which is used up.

    folder: that of the file. keys: those that were set elsewhere, `said` being the name of where. problems: found
    so far.
    cpus, data_dir: as in `load_config`.
    Raises ConfigError with all problems.
    """
    found = [*problems, *_hidden_name(raw, keys, said)]
    found += add_csv_(
        raw, folder, {key.removeprefix("budgets.") for key in keys if key.startswith("budgets.")}
    )
    unpinned, nowhere = pin_(raw, folder)
    place_(raw, folder, data_dir)
    config, broken, wrong = validate(raw)
    found += [*unpinned, *wrong]
    broken |= nowhere
    if config is not None:
        found += check(config, broken, cpus)
    if found or config is None:
        raise ConfigError(found)
    return config


def read_toml(path: Path) -> dict[str, Any]:
    """Return a TOML file's content. Raises ConfigError, one line, where there is no such file."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        near = nearest(path.name, [other.name for other in path.parent.glob("*.toml")])
        raise ConfigError(
            f"no file {path}"
            + (f"; {near}" if "mean" in near else "; fed-asi init FOLDER writes a fleet file to begin with")
        ) from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path} is not UTF-8 text") from None
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from None
    except ValueError as error:  # such as a NUL in the name
        raise ConfigError(f"{str(path)!r} cannot be read: {error}") from None
    try:
        return tomllib.loads(text)
    except Exception as error:  # tomllib lets Python's errors on huge numbers and deep lists through
        raise ConfigError(f"{path} is not TOML: {(str(error).splitlines() or [''])[0]}") from None


def _hidden_name(raw: Mapping[str, Any], keys: Collection[str], said: str) -> Iterator[str]:
    """Yield the problem of an overridden method name that the file's own `methods` would hide."""
    method = raw.get("method")
    if "method.name" in keys and "method.methods" not in keys and isinstance(method, dict):
        forms = method.get("methods")
        if forms is not None:
            yield (
                f"{said}method.name: the file's method.methods = {forms} decides the forms, whatever the name; "
                "set method.methods too"
            )
