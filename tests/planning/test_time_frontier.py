"""Bytes against seconds: each row is the fastest plan that captures as much within its bytes."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, fx, nn

from fed_asi.compression.graph import analyse
from fed_asi.fleets.hardware import preset
from fed_asi.memory.work import Network, network_of
from fed_asi.planning.device_round import DeviceRound
from fed_asi.planning.duty import Duty
from fed_asi.planning.in_time import EQUAL, plan_in_time
from fed_asi.planning.profile import Profile
from fed_asi.planning.search import plan
from fed_asi.planning.time_frontier import frontier
from fed_asi.planning.time_tables import frontier_table, kinds_of_work, takes, where_it_goes
from fed_asi.planning.wishes import Wishes

SOME = {"layers": "last 2"}


@pytest.fixture(scope="module")
def board(model: nn.Module, batch: tuple[Tensor, Tensor]) -> DeviceRound:
    traced = fx.symbolic_trace(model.eval())
    tail = network_of(traced, torch.zeros_like(batch[0][:1]), analyse(traced).pooled)
    return DeviceRound(Network(()), tail, Duty({8: 1}), preset("stm32f746").hardware)


@pytest.mark.few(1)
@pytest.mark.parametrize("clock", [True, False])
def test_more_bytes_are_worth_more_or_are_quicker(made: Profile, board: DeviceRound, clock: bool) -> None:
    there = board if clock else DeviceRound(board.trunk, board.tail, board.duty)
    chosen = plan_in_time(made, "2 KiB", there, Wishes(), **SOME)
    rows = frontier(made, chosen.plan, there, **SOME)
    cost = [one.macs if one.spent is None else one.spent.sim_seconds for one in rows]
    for i, one in enumerate(rows):
        within = plan(made, one.plan.budget_bytes, **SOME)
        assert one.plan.planned_bytes <= (one.plan.budget_bytes or 0)
        assert one.plan.value >= min(chosen.plan.value, within.value * (1 - EQUAL)) - 1e-12
        if i:
            assert one.plan.value > rows[i - 1].plan.value or cost[i] < cost[i - 1]
    (own, *_) = (one for one in rows if one.plan.value >= chosen.plan.value * (1 - EQUAL))
    assert own.plan.planned_bytes <= chosen.plan.planned_bytes
    text = frontier_table(rows, chosen, made)
    assert len(text.splitlines()) == 1 + len(rows)
    assert ("joules" in text) == clock


def test_texts_say_where_seconds_go(made: Profile, board: DeviceRound) -> None:
    chosen = plan_in_time(made, "2 KiB", board, Wishes(), **SOME)
    text = where_it_goes(chosen, board)
    assert text.splitlines()[-1].startswith("together")
    assert "100.0%" in text
    for word in ("forward", "weight gradients", "update of the weights", "bytes moved", "joules"):
        assert word in text
    assert kinds_of_work(board, chosen).startswith("seconds by kind of work: dense products")
    assert takes(chosen).endswith(" J")
    timeless = DeviceRound(board.trunk, board.tail, board.duty)
    counted = plan_in_time(made, "2 KiB", timeless, Wishes(), **SOME)
    assert "joules" not in where_it_goes(counted, timeless)
    assert kinds_of_work(timeless, counted) == ""
    assert takes(counted).endswith("multiply-accumulates")
