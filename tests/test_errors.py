"""The errors that a user can meet: one tree, one line each, and hints that name what was meant."""

from __future__ import annotations

import pickle
import re

import pytest

from fed_asi import errors
from fed_asi.errors import ConfigError, FedAsiError, OverBudgetError, nearest


def test_the_tree_at_the_top_is_the_tree():
    drawn = set(re.findall(r"[├└]── (\w+)", errors.__doc__ or ""))
    kinds = {
        name
        for name, kind in vars(errors).items()
        if isinstance(kind, type) and issubclass(kind, FedAsiError)
    }
    assert drawn == kinds - {"FedAsiError"}
    assert all(issubclass(getattr(errors, name), FedAsiError) for name in drawn)


def test_a_configurations_problems_are_all_kept():
    error = ConfigError(["cohort: 9 of 5", "rounds: 0"])
    assert error.problems == ["cohort: 9 of 5", "rounds: 0"]
    assert str(error) == "cohort: 9 of 5\nrounds: 0"
    assert ConfigError("one").problems == ["one"]


def test_a_step_over_its_budget_says_by_how_much_also_in_another_process():
    error = pickle.loads(pickle.dumps(OverBudgetError("out of memory", 4096)))
    assert (str(error), error.measured_bytes) == ("out of memory", 4096)


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("mcunett", "did you mean mcunet?"),
        ("resnet", "did you mean resnet34 or resnet18?"),
        ("vgg", "known: mcunet, resnet18, resnet34"),
    ],
)
def test_the_nearest_names_are_offered(name, hint):
    assert nearest(name, ("resnet34", "resnet18", "mcunet")) == hint
