"""A small fleet file that is right, and what is said of it once it is not."""

from __future__ import annotations

from pathlib import Path

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
