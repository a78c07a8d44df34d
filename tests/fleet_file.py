"""A small valid fleet file, and the errors it gives once it is not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fed_asi.errors import ConfigError
from fed_asi.fleets.file import load_config

GOOD = """
name = "small"
rounds = 4
cohort = 3
[[groups]]
name = "tight"
count = 2
budget = "64 KiB"
batch_size = 16
micro_batch = 4
schedule = [{round = 3, budget = "32 KiB"}]
[[groups]]
name = "roomy"
count = 3
budget = "unlimited"
"""


def problems_of(path: Path, *overrides: str, cpus: int = 4) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load_config(path, overrides, cpus=cpus)
    return caught.value.problems


class Raw(str):
    """Text that stands in a TOML file as it is."""


def toml(value: Any) -> str:
    """Return a value as TOML writes it on one line."""
    if isinstance(value, Raw):
        return str(value)
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return '"' + "".join(f"\\U{ord(letter):08x}" for letter in value) + '"'
    if isinstance(value, list):
        return f"[{', '.join(map(toml, value))}]"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{toml(key)} = {toml(inner)}' for key, inner in value.items())}}}"
    return repr(value)
