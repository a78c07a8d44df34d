"""Where a step's work goes: the parts add up to the clock's count, to the digit."""

from __future__ import annotations

from dataclasses import replace

import pytest

from fed_asi.fleets.hardware import preset
from fed_asi.memory.work import total
from fed_asi.methods import ASI, BiasOnly, Frozen, Method, Vanilla
from fed_asi.planning.device_round import DeviceRound
from fed_asi.planning.duty import Duty
from fed_asi.planning.step_parts import AGAIN, INPUTS, JUDGING, KEEPING, TRUNK, WEIGHTS, step_parts
from planning.test_device_round import NETWORKS, drawn
from planning.test_device_round import TRUNK as FROZEN_PART

DUTY = Duty({16: 3, 6: 1}, held=5)


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("duty", [DUTY, replace(DUTY, each=True), replace(DUTY, twice=True)])
def test_the_parts_are_the_whole(name: str, duty: Duty) -> None:
    made = DeviceRound(FROZEN_PART, NETWORKS[name], duty, preset("stm32f746").hardware)
    for seed, micro_batch in enumerate((1, 4, 16)):
        methods = drawn(NETWORKS[name], seed)
        parts = step_parts(made, methods, micro_batch)
        task = made.task(methods, micro_batch)
        assert total(parts.values()) == total([task.trunk, task.step, task.judging])
        assert parts[TRUNK] == task.trunk
        assert parts[JUDGING] == task.judging
        assert all(min(work) >= 0 for work in parts.values())
        assert (AGAIN in parts) == duty.twice


def test_each_part_is_what_its_name_says() -> None:
    """Biases need no weight gradient's product, and the first layer that trains no input gradient."""
    network = NETWORKS["residual"]
    made = DeviceRound(FROZEN_PART, network, DUTY)
    head: dict[str, Method] = {"head": Vanilla()}
    assert INPUTS not in step_parts(made, head, 4)
    assert KEEPING not in step_parts(made, head, 4)
    biases: dict[str, Method] = {"one": BiasOnly(), "head": BiasOnly()}
    assert step_parts(made, biases, 4)[WEIGHTS].macs == 0
    assert step_parts(made, biases, 4)[INPUTS].macs > 0
    ranked: dict[str, Method] = {"one": ASI((2, 2, 2, 2)), "two": Frozen(), "head": Vanilla()}
    assert step_parts(made, ranked, 4)[KEEPING].macs > 0
