"""What is shown beside a device's plan: the limits that bind, what more would buy, and simpler ways at their best."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import pytest
import torch
from torch import nn

from fed_asi.planning.bench import Bench, Rule
from fed_asi.planning.calibration import profile
from fed_asi.planning.device_search import DevicePlan
from fed_asi.planning.device_tables import MORE, device_text, more_of_each, simpler_ways
from fed_asi.planning.whole_device import DevicePlanner, plan_device
from fed_asi.planning.within import Within
from fed_asi.training.at_once import at_once
from fed_asi.units import format_bytes

METHODS = ("bias", "channels", "vanilla")


@pytest.fixture(scope="module")
def planner() -> DevicePlanner:
    """Two convolutions whose weights are more than 16 KiB, and a classifier."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = nn.Sequential(
            nn.Conv2d(3, 32, 3),
            nn.Conv2d(32, 96, 3),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(96, 4),
        )
    x, y = torch.randn(1, 3, 6, 6, generator=torch.Generator().manual_seed(0)), torch.tensor([1])
    asked = {"methods": METHODS, "centered": False}
    made = profile(net, x, y, trained=["0", "1", "4"], micro_batches=(1,), grid=False, **asked)
    rule = Rule("applied", mover=partial(at_once, clip_norm=None))
    return DevicePlanner(made, Bench(net.train(), x, y, rule, update="layer"), **asked)


@pytest.fixture(scope="module")
def within(planner: DevicePlanner) -> Within:
    return Within(planner.best(Within()).memory.ram_bytes - 20 * 1024, 256 * 1024)


@pytest.fixture(scope="module")
def found(planner: DevicePlanner, within: Within) -> DevicePlan:
    return planner.best(within)


def test_16_kib_more_are_the_best_plan_with_16_kib_more(
    planner: DevicePlanner, within: Within, found: DevicePlan
) -> None:
    more = more_of_each([planner], within)
    assert more.keys() == {"RAM", "flash"}
    again = planner.best(replace(within, ram_bytes=(within.ram_bytes or 0) + MORE))
    assert more["RAM"].plan == again.plan
    assert more["RAM"].plan.value > found.plan.value
    assert more["flash"].plan.value == found.plan.value
    assert more_of_each([planner], Within()) == {}


def test_simpler_ways_are_each_the_best_of_their_kind(
    planner: DevicePlanner, within: Within, found: DevicePlan
) -> None:
    ways = {way.name: way for way in simpler_ways([planner], within)}
    assert list(ways) == ["head only", "biases", "last layer whole", "biases and fixed channels"]
    made, bench = planner.question.profile, planner.bench
    limits = {"ram": within.ram_bytes, "flash": within.flash_bytes, "centered": False}
    head = plan_device(made, bench, methods=("vanilla",), layers="last 0", **limits)
    assert ways["head only"].found is not None
    assert ways["head only"].found.plan.methods == head.plan.methods
    assert list(head.plan.methods) == ["4"]
    assert ways["last layer whole"].found is None  # 108 KiB of weights, and what they come from
    ram = format_bytes(within.ram_bytes)
    assert ways["last layer whole"].why == f"does not fit: ram {ram} is below the smallest step"
    channels = ways["biases and fixed channels"].found
    assert channels is not None
    assert head.plan.value < channels.plan.value <= found.plan.value


def test_the_text_names_what_binds(planner: DevicePlanner, within: Within, found: DevicePlan) -> None:
    text = device_text([planner], within, found)
    assert text.startswith("What binds: RAM, in the step: ")
    assert "flash, " not in text
    for row in ("this plan", "with 16 KiB more RAM", "with 16 KiB more flash", "head only", "biases"):
        assert f"\n{row} " in text
    narrow = device_text([planner], within, found, width=80).partition("\n\n")[2]
    assert max(map(len, narrow.splitlines())) <= 80 < max(map(len, text.splitlines()[2:]))
    free = planner.best(Within(2**20, 2**20))
    assert device_text([planner], Within(2**20, 2**20), free).startswith("With 16 KiB more of RAM or flash")
