"""A worker's part that needs no Flower: what a device knows of itself."""

from __future__ import annotations

import pytest

from fed_asi.devices.job import Job
from fed_asi.fleets.resources import Resources
from fed_asi.flower.worker import within_own_budget


@pytest.mark.parametrize(
    ("asked", "own", "expected"),
    [(None, None, None), (900, None, 900), (None, 700, 700), (900, 700, 700), (500, 700, 500)],
)
def test_a_devices_own_budget_counts_where_it_is_smaller(
    asked: int | None, own: int | None, expected: int | None
) -> None:
    job = Job(1, 0, Resources(asked, 16, 4), 0.1)
    found = within_own_budget(job, {} if own is None else {"budget": own})
    assert found.resources == Resources(expected, 16, 4)
