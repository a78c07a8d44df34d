"""One value changed for one run, on the command line."""

from __future__ import annotations

import pytest

from fed_asi.fleets.file import load_config
from fleet_file import GOOD, problems_of


@pytest.mark.parametrize(
    ("change", "read"),
    [
        ("train.lr=0.2", lambda c: c.train.lr == 0.2),
        ("name=other", lambda c: c.name == "other"),
        ('groups.tight.budget="7 KiB"', lambda c: c.groups[0].budget == 7168),
        ("groups.tight.budget=7 KiB", lambda c: c.groups[0].budget == 7168),
        ("groups.1.count=9", lambda c: c.num_devices == 11),
        ('method.layers=["a.b", "c"]', lambda c: c.method.layers == ("a.b", "c")),
        ("method.layers=all", lambda c: c.method.layers == "all"),
        ("train.clip_norm=5", lambda c: c.train.clip_norm == 5),
    ],
)
def test_overrides(write, change, read):
    assert read(load_config(write(GOOD), [change], cpus=4))


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ("=3", "--set '=3': write key=value, such as train.lr=0.1"),
        ("groups.9.count=1", "--set 'groups.9.count=1': there is no groups.9"),
        ("groups=1", "groups: must be a list, not 1"),
    ],
)
def test_what_cannot_be_set_is_named(write, change, expected):
    assert problems_of(write(GOOD), change) == [expected]
