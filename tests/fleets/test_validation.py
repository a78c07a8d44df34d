"""Stand-ins for wrong values: the rest is checked too, and nothing is invented."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fed_asi.errors import ConfigError
from fed_asi.fleets.file import load_config
from fleet_file import GOOD, problems_of, toml


def test_a_broken_count_hides_no_other_problem_and_makes_none_up(write):
    problems = problems_of(write(GOOD), "groups.tight.count=0", "cohort=5", "train.lr=0")
    assert len(problems) == 2


anything = st.recursive(
    st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
KEYS = ["groups", "cohort", "train", "devices", "budgets", "method", "sharding", "name"]


def said_of(path: Path) -> list[str]:
    try:
        load_config(path, cpus=4)
    except ConfigError as error:
        return error.problems or ["refused without a word\n"]
    return []


@settings(  # a busy machine is not a bug, and every example writes the file anew
    deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
)
@given(anything, st.sampled_from(KEYS))
def test_no_value_anywhere_makes_another_error(tmp_path: Path, value: Any, key: str) -> None:
    good = {"name": "x", "cohort": 1, "groups": [{"name": "a", "count": 1, "budget": 5}]}
    path = tmp_path / "fleet.toml"
    path.write_text("\n".join(f"{one} = {toml(said)}" for one, said in {**good, key: value}.items()))
    for problem in said_of(path):
        assert "\n" not in problem
        assert "is not TOML" not in problem
