"""Which parts of a workplace are on a device, and which have no room or no exact numbers there."""

from __future__ import annotations

import math

import pytest
import torch

from fed_asi.gpus import CPU, Gpu
from fed_asi.workplace import placing
from fed_asi.workplace.placing import kept_there, room_bytes, trunk_device
from runs import small

META = torch.device("meta")


@pytest.mark.parametrize(
    ("room", "there"), [(0, [False, False]), (39, [False, True]), (40, [True, False]), (60, [True, True])]
)
def test_what_fits_goes_there_in_order_and_the_rest_stays(room, there):
    tensors = [None, torch.ones(10), torch.ones(5)]
    found = kept_there(tensors, META, room)
    assert found[0] is None
    assert [one is not None and one.device == META for one in found[1:]] == there
    assert all(one is given or one.device == META for one, given in zip(found[1:], tensors[1:], strict=True))


def test_half_of_a_workers_part_of_a_gpu_is_for_features(monkeypatch):
    monkeypatch.setattr(placing, "gpus_here", lambda: [Gpu(0, "small", 1 << 30), Gpu(1, "large", 1 << 33)])
    monkeypatch.setattr(placing, "gpu_share", lambda _config: 0.25)
    loop, flower = small(), small(compute={"backend": "flower"})
    assert room_bytes(loop, CPU) == math.inf
    assert room_bytes(loop, torch.device("cuda", 1)) == 1 << 32
    assert room_bytes(flower, torch.device("cuda", 1)) == 1 << 30
    assert room_bytes(flower, torch.device("cuda", 0)) == 1 << 27


def test_a_trunk_in_eight_bits_computes_on_the_cpu(monkeypatch):
    monkeypatch.setattr(placing, "device_named", lambda _name: torch.device("cuda", 0))
    assert trunk_device(small(compute={"device": "cuda"})) == torch.device("cuda", 0)
    assert trunk_device(small(compute={"device": "cuda"}, storage={"frozen": "int8"})) == CPU
