"""The order in which jobs begin: it wastes little of the workers' time, and follows measured times."""

from __future__ import annotations

import pytest

from fed_asi.rounds.job_order import Costs, in_order, makespan


def test_swaps_end_earlier_than_the_largest_first() -> None:
    jobs = [3.0, 3.0, 2.0, 2.0, 2.0]
    assert makespan(sorted(jobs, reverse=True), 2) == 7.0
    assert makespan(in_order(jobs, lambda job: job, 2), 2) == 6.0


@pytest.mark.parametrize("workers", [1, 2, 4, 9])
def test_every_job_is_begun_once(workers: int) -> None:
    jobs = [5, 1, 4, 1, 3, 9, 2, 6]
    found = in_order(jobs, float, workers)
    assert sorted(found) == sorted(jobs)
    assert makespan(found, workers) <= makespan(sorted(jobs, reverse=True), workers)


def test_costs_are_images_until_something_is_known() -> None:
    costs = Costs()
    assert costs.estimate("slow", 7) == 7.0
    costs.add("slow", 4.0, 2)
    assert costs.estimate("slow", 3) == 6.0
    costs.add("quick", 1.0, 8)
    assert costs.estimate("new", 4) == 2.0  # 5 s for 10 images on the whole
