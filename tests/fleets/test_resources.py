"""A device's resources: each field has a key, a way through a job and a column; a new field says what it lacks."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import pytest

from fed_asi.devices.job import Job
from fed_asi.errors import FedAsiError
from fed_asi.fleets import resources
from fed_asi.fleets.config import DeviceConfig, GroupConfig
from fed_asi.fleets.resources import BudgetChange, ResourceKeys, Resources, key_of
from fed_asi.results.schema import DeviceRecord, DeviceRoundRecord

FIELDS = [pytest.param(one, id=one.name) for one in fields(Resources)]


def columns(record: type) -> set[str]:
    return {one.name for one in fields(record)}


@pytest.mark.parametrize("one", FIELDS)
def test_every_field_has_a_key_of_groups_and_devices(one: Any) -> None:
    for keys in (ResourceKeys, GroupConfig, DeviceConfig):
        assert key_of(one) in keys.model_fields


def test_every_key_but_the_schedule_is_a_field() -> None:
    assert {key_of(one) for one in fields(Resources)} == set(ResourceKeys.model_fields) - {"schedule"}
    assert set(BudgetChange.model_fields) - {"round"} <= set(ResourceKeys.model_fields)


@pytest.mark.parametrize("one", FIELDS)
def test_every_field_goes_from_the_file_through_a_job_and_back(one: Any) -> None:
    said = {"budget": "8 KiB", "batch_size": 16, key_of(one): 7}
    group = GroupConfig.model_validate({"name": "a", "count": 1, **said})
    found = resources.resources_of(group)
    assert getattr(found, one.name) == 7
    job = Job(1, 0, found, 0.1)
    assert Job.from_json(job.to_json()) == job
    assert Job.from_json(replace(job, resources=Resources(1, 1)).to_json()) != job


@pytest.mark.parametrize("one", FIELDS)
def test_every_field_has_its_column(one: Any) -> None:
    assert one.name in columns(DeviceRecord)
    if key_of(one) in BudgetChange.model_fields:
        assert one.name in columns(DeviceRoundRecord)
        assert one.name in resources.of_one_round(Resources(1, 2, 3))


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ('{"version": 3}', "another version"),
        ('{"version": 4}', "not a job"),
        ("[]", "not a job"),
        ("no JSON", "not a job"),
    ],
)
def test_a_job_of_another_shape_is_refused_by_name(text: str, why: str) -> None:
    with pytest.raises(FedAsiError, match=why):
        Job.from_json(text)


def test_a_resource_that_this_side_does_not_know_is_refused() -> None:
    text = Job(1, 0, Resources(5, 4), 0.1).to_json().replace('"batch_size"', '"unheard_of":9,"batch_size"')
    with pytest.raises(FedAsiError, match=r"what the server sent is not a job: .*unheard_of"):
        Job.from_json(text)


GROUP = Resources(budget_bytes=100, batch_size=8, micro_batch=4)


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ({"budget": 50}, Resources(50, 8, 4)),
        ({"budget": None}, Resources(None, 8, 4)),  # unlimited is a budget of its own
        ({"budget": 50, "batch_size": 16}, Resources(50, 16, 4)),
        ({"budget": 50, "batch_size": 2}, Resources(50, 2, 2)),
        ({"budget": 50, "batch_size": 16, "micro_batch": 16}, Resources(50, 16, 16)),
    ],
)
def test_what_a_device_does_not_say_is_its_groups(said: dict[str, Any], expected: Resources) -> None:
    assert resources.resources_of(DeviceConfig(partition_id=0, **said), GROUP) == expected


def test_a_schedule_changes_the_budget_alone_and_in_order() -> None:
    changes = (BudgetChange(round=5, budget=None), BudgetChange(round=2, budget=30))
    keys = DeviceConfig(partition_id=0, budget=100, schedule=changes)
    assert resources.schedule_of(keys, GROUP) == (
        (2, replace(GROUP, budget_bytes=30)),
        (5, Resources(None, 8, 4)),
    )


def test_a_device_without_limits_keeps_what_is_none() -> None:
    assert resources.unlimited(GROUP) == Resources(None, 8, 4)
    limits = {one.name for one in fields(Resources) if one.metadata.get("limit")}
    told = {"batch_size", "micro_batch"}  # how to train, not what there is
    assert limits == {one.name for one in fields(Resources)} - told, "say of each new resource which it is"


def test_a_micro_batch_beyond_its_batch_is_named() -> None:
    keys = DeviceConfig(partition_id=0, budget=1, batch_size=4, micro_batch=8)
    assert list(resources.problems(keys)) == ["micro_batch: 8 is more than its batch_size 4"]
    assert not list(resources.problems(DeviceConfig(partition_id=0, budget=1, micro_batch=8)))
