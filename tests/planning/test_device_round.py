"""A round's cost as a sum over layers: equal to the clock's count for the whole plan, to the digit."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
import torch
from torch import fx, nn

from fed_asi import models
from fed_asi.compression.graph import analyse
from fed_asi.errors import ConfigError
from fed_asi.fleets.clock import Task, joules_of, seconds_of, spent
from fed_asi.fleets.hardware import Hardware, preset
from fed_asi.memory.work import Network, Work, network_of, total
from fed_asi.methods import ASI, BiasOnly, Frozen, Method, Quantized, Vanilla
from fed_asi.planning.device_round import DeviceRound
from fed_asi.planning.duty import Duty, micro_batches
from fed_asi.planning.gauge import Gauge

BOARD = preset("stm32f746").hardware
DUTY = Duty({16: 3, 6: 1}, held=5, down_bytes=40_000)


class Residual(nn.Module):
    """A block whose shortcut has a layer of its own, behind norms, and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.norm = nn.Conv2d(4, 6, 3, padding=1, stride=2), nn.BatchNorm2d(6)
        self.two, self.short = nn.Conv2d(6, 6, 3, padding=1, groups=6), nn.Conv2d(4, 6, 1, stride=2)
        self.head = nn.Linear(6, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        deep = self.two(torch.relu(self.norm(self.one(x))))
        return self.head((deep + self.short(x)).mean((2, 3)))


def counted(model: nn.Module, *shape: int) -> Network:
    traced = fx.symbolic_trace(model.eval())
    return network_of(traced, torch.zeros(1, *shape), analyse(traced).pooled)


TRUNK = counted(nn.Sequential(nn.Conv2d(3, 4, 3)), 3, 18, 18)
NETWORKS = {
    "residual": counted(Residual(), 4, 16, 16),
    "tiny": counted(models.build("tiny", 10, None, 16), 3, 16, 16),
}
FORMS: list[Method] = [Vanilla(), BiasOnly(), Quantized(8, True), Frozen(), Frozen()]


def drawn(network: Network, seed: int) -> dict[str, Method]:
    """A form for each layer; the last trains, as a head does."""
    rng = random.Random(seed)
    found: dict[str, Method] = {}
    for layer in network.layers:
        dims = layer.sized(1, Vanilla()).dims
        ranks = tuple(min(2, d) for d in dims)
        found[layer.name] = rng.choice([*FORMS, ASI(ranks)] if len(dims) == 4 else FORMS)
    return found | {network.layers[-1].name: Vanilla()}


@pytest.mark.few(2)
@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("duty", [DUTY, replace(DUTY, each=True), replace(DUTY, twice=True)])
def test_the_sum_over_layers_is_what_the_clock_counts(name: str, duty: Duty) -> None:
    network = NETWORKS[name]
    names = [layer.name for layer in network.layers]
    made = DeviceRound(TRUNK, network, duty, BOARD)
    for seed, micro_batch in enumerate((1, 4, 16) * 4):
        methods = drawn(network, seed)
        first = next(i for i, one in enumerate(names) if methods[one].trains_bias)
        trains = names[first:]
        parts = [made.form(one, methods[one], micro_batch, trains) for one in names]
        task = made.task(methods, micro_batch)
        rest = made.rest(micro_batch, trains, names)
        assert total([rest, *(work for work, _ in parts)]) == total([task.trunk, task.step, task.judging])
        assert sum(up for _, up in parts) == task.up_bytes
        seconds, joules = made.gauge("seconds"), made.gauge("joules")
        for gauge, whole in ((seconds, "sim_seconds"), (joules, "energy_joules")):
            summed = gauge.rest + gauge.of(rest) + sum(gauge.of(*one) for one in parts)
            assert summed == pytest.approx(getattr(made.spent(methods, micro_batch), whole), rel=1e-12)


def test_layers_that_are_not_planned_for_are_in_the_rest() -> None:
    network = NETWORKS["residual"]
    made = DeviceRound(TRUNK, network, DUTY, BOARD)
    methods: dict[str, Method] = {"two": Vanilla(), "head": Vanilla()}
    parts = [made.form(one, methods[one], 4, ["two", "head"])[0] for one in methods]
    task = made.task(methods, 4)
    rest = made.rest(4, ["two", "head"], list(methods))
    assert total([rest, *parts]) == total([task.trunk, task.step, task.judging])


def test_a_branch_beside_the_first_layer_is_counted_once_it_can_have_a_gradient() -> None:
    """With the first convolution frozen no gradient reaches the shortcut's input."""
    made = DeviceRound(TRUNK, NETWORKS["residual"], DUTY, BOARD)
    trains = ["two", "short", "head"]
    assert made.form("short", Frozen(), 4, trains)[0] < made.form("short", Vanilla(), 4, trains)[0]
    quiet = made.form("short", Frozen(), 4, trains)[0]
    assert quiet == made.form("short", Frozen(), 4, ["short", "head"])[0]


def test_prices_are_the_clocks() -> None:
    work = Work(1_000_003, 20_011, 30_013, 40_009, 57)
    seconds, joules = Gauge.seconds(BOARD, 1000), Gauge.joules(BOARD, 1000)
    assert seconds.of(work) == pytest.approx(seconds_of(work, BOARD), rel=1e-12)
    assert joules.of(work) == pytest.approx(joules_of(work, seconds_of(work, BOARD), BOARD) or 0.0, rel=1e-12)
    by_work = replace(BOARD, compute_watts=None, mac_joules=2e-12, byte_joules=5e-12)
    assert Gauge.joules(by_work).of(work) == pytest.approx(joules_of(work, 9.9, by_work) or 0.0, rel=1e-12)
    assert Gauge.macs().of(work, 100) == work.macs
    silent = Task(1000, Work(), Work(), Work(), 0)
    assert seconds.rest == spent(silent, BOARD).sim_seconds
    assert joules.rest == spent(silent, BOARD).energy_joules
    sent = spent(replace(silent, up_bytes=777), BOARD)
    assert seconds.rest + seconds.of(Work(), 777) == pytest.approx(sent.sim_seconds, rel=1e-12)
    assert joules.rest + joules.of(Work(), 777) == pytest.approx(sent.energy_joules or 0.0, rel=1e-12)


def test_devices_that_do_not_say_enough_are_named() -> None:
    with pytest.raises(ConfigError, match="does not say dense_per_second"):
        Gauge.seconds(Hardware("mine"))
    with pytest.raises(ConfigError, match="stm32f746 does not say radio_watts"):
        Gauge.joules(replace(BOARD, radio_watts=None))
    assert replace(BOARD, compute_watts=None, mac_joules=1e-12).lacking_power == []
    with pytest.raises(ConfigError, match="no clock"):
        DeviceRound(TRUNK, NETWORKS["tiny"], DUTY).gauge("seconds")
    with pytest.raises(ConfigError, match="without a step"):
        DeviceRound(TRUNK, NETWORKS["tiny"], Duty({}))


def test_micro_batches_are_the_full_ones_and_the_rest() -> None:
    assert micro_batches(10, 4) == [(4, 2), (2, 1)]
    assert micro_batches(3, 4) == [(3, 1)]
    assert micro_batches(0, 4) == []
