"""One value changed for one run, on the command line."""

from __future__ import annotations

import pytest

from fed_asi.fleets.file import load_config
from fed_asi.fleets.overrides import drop_, put_
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


def test_every_entry_of_a_list_may_be_meant_at_once():
    raw = {"groups": [{"name": "a"}, {"name": "b", "budget": 1}], "train": {"lr": 1}}
    assert put_(raw, "groups.*.budget", 2) is None
    assert [group["budget"] for group in raw["groups"]] == [2, 2]
    assert put_(raw, "devices.*.budget", 2) is None  # a table of that name, which the file's checks refuse
    assert put_({"groups": []}, "groups.*.budget", 2) == "there is no groups.*"
    assert put_(raw, "train.lr.x", 2) == "train.lr is not a table"


def test_a_key_is_taken_out_or_said_not_to_be_there():
    raw = {"groups": [{"name": "a"}, {"name": "b", "budget": 1}], "train": {"lr": 1}}
    assert drop_(raw, "groups.*.budget") is None
    assert drop_(raw, "train.lr") is None
    assert raw == {"groups": [{"name": "a"}, {"name": "b"}], "train": {}}
    assert drop_(raw, "train.lr") == "there is no train.lr"
    assert drop_(raw, "trian.lr") == "there is no trian"
    assert raw == {"groups": [{"name": "a"}, {"name": "b"}], "train": {}}
