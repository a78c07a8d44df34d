"""The parts of a device's round, worked out by hand."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from torch import fx, nn

from fed_asi.devices.tasks import Images, Tasks
from fed_asi.fleets.resources import Resources
from fed_asi.memory.work import Work, network_of, total
from fed_asi.methods import BiasOnly, Vanilla
from fed_asi.planning.plan import Plan
from fed_asi.planning.profile import ModelFingerprint
from runs import small

TRUNK = network_of(fx.symbolic_trace(nn.Sequential(nn.Conv2d(3, 4, 3))), torch.zeros(1, 3, 8, 8))
TAIL = network_of(fx.symbolic_trace(nn.Sequential(nn.Flatten(), nn.Linear(144, 5))), torch.zeros(1, 4, 6, 6))
PLAN = Plan(ModelFingerprint("m", (3, 8, 8), "float32"), None, 0, 4, {"1": Vanilla()})


def tasks(**train: object) -> Tasks:
    return Tasks(small(train=train) if train else small(), TRUNK, TAIL, 1000)


@pytest.mark.parametrize(
    ("images", "epochs", "expected"),
    [(40, 1, [16, 16, 8]), (40, 3, [16, 16, 8] * 3), (32, 2, [16] * 4), (5, 2, [5, 5]), (1, 1, [1])],
)
def test_the_steps_of_a_round(images: int, epochs: int, expected: list[int]) -> None:
    made = tasks(epochs=epochs)
    asked = Resources(None, 16), Images(images, 0)
    assert made.steps(*asked) == len(expected)
    assert made.batches(*asked) == Counter(expected)
    for steps in range(len(expected) + 1):
        assert made.batches(*asked, steps) == Counter(expected[:steps])


def test_a_round_is_every_image_in_micro_batches_then_a_step_a_batch() -> None:
    found = tasks().task(PLAN, Resources(None, 16), Images(22, 5))
    micro, last = TAIL.step(4, PLAN.methods), TAIL.step(2, PLAN.methods)
    assert found.step == total([micro.times(4 + 1), last, TAIL.update(PLAN.methods).times(2)])
    assert found.trunk == total([TRUNK.forward(4).times(5), TRUNK.forward(2)])
    both = [total([TRUNK.forward(size), TAIL.forward(size)]) for size in (4, 1)]
    assert found.judging == total([one.times(2) for one in both])
    assert (found.down_bytes, found.up_bytes) == (1000, 4 * (144 * 5 + 5))


def test_fewer_steps_are_less_work_and_the_same_messages() -> None:
    whole = tasks().task(PLAN, Resources(None, 16), Images(40, 5))
    cut = tasks().task(PLAN, Resources(None, 16), Images(40, 5), steps=2)
    none = tasks().task(PLAN, Resources(None, 16), Images(40, 5), steps=0)
    assert cut.step.macs * 40 == whole.step.macs * 32
    assert (cut.up_bytes, cut.judging, none.step, none.trunk) == (
        whole.up_bytes,
        whole.judging,
        Work(),
        Work(),
    )


def test_an_update_after_each_micro_batch_is_one_step_each() -> None:
    resources, images = Resources(None, 16), Images(16, 0)
    each = tasks(update="micro-batch")
    once = tasks().task(PLAN, resources, images).step
    update = TAIL.update(PLAN.methods)
    assert total([once, update.times(3)]) == each.task(PLAN, resources, images).step


def test_only_what_trains_goes_up() -> None:
    plan = Plan(PLAN.fingerprint, None, 0, 4, {"1": BiasOnly()})
    assert tasks().up_bytes(plan) == 4 * 5


def test_a_refused_plan_costs_its_first_step() -> None:
    found = tasks().first_step(PLAN, Resources(None, 16), Images(40, 0))
    assert found.step == tasks().task(PLAN, Resources(None, 16), Images(16, 0)).step
    assert (found.down_bytes, found.up_bytes) == (0, 0)
