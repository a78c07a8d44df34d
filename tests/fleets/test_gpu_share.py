"""Shares of GPUs among workers, and what a fleet file may not ask for."""

from __future__ import annotations

from typing import Any

import pytest

from fed_asi.fleets import gpu_share as sharing
from fed_asi.fleets.gpu_share import gpu_share, gpus_fit, gpus_used, room, workers
from fleet_file import GOOD, problems_of
from runs import small


def machine(monkeypatch: pytest.MonkeyPatch, cpus: int, gpus: int) -> None:
    """Make this machine one of so many CPUs and GPUs."""
    monkeypatch.setattr(sharing, "cpus_here", lambda: cpus)
    monkeypatch.setattr(sharing, "gpus_here", lambda: [None] * gpus)
    there = ["cpu", *(["cuda"] if gpus else []), *(f"cuda:{number}" for number in range(gpus))]
    monkeypatch.setattr(sharing, "lacking", lambda name: None if name in there else "is not here")


def compute(**keys: Any) -> Any:
    return small(compute={"backend": "flower", "workers": None, **keys})


@pytest.mark.parametrize(
    ("keys", "at_work", "share"),
    [
        ({}, 16, 0.0),
        ({"device": "cuda"}, 16, 0.125),
        ({"device": "cuda:1"}, 16, 0.0625),
        ({"device": "cuda", "workers": 3}, 3, 0.5),
        ({"device": "cuda:0", "workers": 3}, 3, 0.3333),
        ({"device": "cuda", "workers": 1}, 1, 1.0),
        ({"device": "cuda", "cpus_per_client": 4}, 4, 0.5),
        ({"device": "cuda", "gpus_per_client": 0.4}, 4, 0.4),
        ({"device": "cuda:0", "gpus_per_client": 0.1}, 10, 0.1),
        ({"device": "cuda", "gpus_per_client": 0.01}, 16, 0.01),
    ],
    ids=str,
)
def test_as_many_work_as_fit_and_each_has_its_share(keys, at_work, share, monkeypatch):
    machine(monkeypatch, 16, 2)
    config = compute(**keys)
    assert (workers(config), gpu_share(config)) == (at_work, share)
    assert at_work <= room(config) or "gpus_per_client" not in keys
    used = gpus_used(config)
    assert not used or -(-at_work // used) * share <= 1.0, "workers are spread over GPUs, each on one of them"
    assert list(gpus_fit(config, (), 16)) == []


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"device": "cuda:5"}, "compute.device: is not here"),
        (
            {"gpus_per_client": 0.5},
            'compute.gpus_per_client: 0.5, but compute.device is "cpu"; set it to "cuda"',
        ),
        (
            {"device": "cuda", "gpus_per_client": 0.4, "workers": 5},
            "compute.workers: 5 workers of 0.4 GPUs each, but 4 fit on the 2 of this machine that they use",
        ),
        (
            {"device": "cuda:1", "ray_address": "10.0.0.1:6379"},
            'compute.device: "cuda:1", but on a cluster Ray says which GPU a worker has; use "cuda"',
        ),
    ],
    ids=str,
)
def test_what_cannot_be_is_one_line(keys, said, monkeypatch):
    machine(monkeypatch, 16, 2)
    assert list(gpus_fit(compute(**keys), (), 16)) == [said]
    assert list(gpus_fit(compute(**keys), ("compute.device",), 16)) == []


def test_a_cluster_and_the_plain_loop_are_not_held_to_this_machines_room(monkeypatch):
    machine(monkeypatch, 16, 1)
    crowd = {"device": "cuda", "gpus_per_client": 1.0, "workers": 9}
    assert list(gpus_fit(compute(**crowd, ray_address="10.0.0.1:6379"), (), 16)) == []
    assert list(gpus_fit(compute(**{**crowd, "backend": "loop"}), (), 16)) == []


def test_a_fleet_file_on_a_machine_without_a_gpu_is_refused_before_anything_starts(write, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    (said,) = problems_of(write(GOOD + '[compute]\ndevice = "cuda"\n'))
    assert said.startswith('compute.device: "cuda", but there is no GPU on this machine: ')


@pytest.mark.parametrize("name", ["auto", "gpu", "cuda:", "cuda:x", "CUDA", "mps", "cuda:0\\n"])
def test_a_device_of_no_kind_says_which_there_are(name, write):
    (said,) = problems_of(write(GOOD + f'[compute]\ndevice = "{name}"\n'))
    assert said.startswith('compute.device: must be "cpu", "cuda" or "cuda:N", the GPU of that number, not ')
    assert "none is chosen for it" in said
