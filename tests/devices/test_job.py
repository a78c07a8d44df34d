"""A device's job, as the small JSON of a message."""

from __future__ import annotations

import json

import pytest

from fed_asi.devices.job import JOB_VERSION, Job
from fed_asi.errors import FedAsiError
from runs import job


def test_a_job_survives_the_wire() -> None:
    sent = job(budget_bytes=4096, check=True, deadline_seconds=2.5)
    assert Job.from_json(sent.to_json()) == sent
    assert Job.from_json(job().to_json()) == job()  # no deadline is infinite


def test_a_twin_is_named_where_there_is_one_and_has_as_long_again() -> None:
    sent = job(twin="plain", deadline_seconds=2.5)
    assert Job.from_json(sent.to_json()) == sent
    assert (sent.patience_seconds, job(deadline_seconds=2.5).patience_seconds) == (5.0, 2.5)
    assert "twin" not in job().to_json()


def test_ram_and_flash_are_said_where_there_are_any() -> None:
    sent = job(ram_bytes=300, reserve_bytes=5)
    assert Job.from_json(sent.to_json()) == sent
    assert not {"ram_bytes", "flash_bytes", "reserve_bytes"} & set(json.loads(job().to_json())["resources"])


@pytest.mark.parametrize(
    "text", ["", "[]", "7", '"job"', "{", "[" * 10**5, json.dumps({"version": JOB_VERSION, "colour": "red"})]
)
def test_what_is_no_job_is_one_line(text: str) -> None:
    with pytest.raises(FedAsiError, match=r"^what the server sent is not a job: .+$"):
        Job.from_json(text)


def test_a_job_of_another_version_is_told_so() -> None:
    for version in (99, None, "1"):
        with pytest.raises(FedAsiError, match=r"^the server speaks another version"):
            Job.from_json(json.dumps({**json.loads(job().to_json()), "version": version}))
