"""The plan of a whole device: the best of all plans traced one by one, and the reason if there is none."""

from __future__ import annotations

import itertools
from functools import partial

import pytest
import torch
from torch import nn

from fed_asi.compression.compress import compress_known_
from fed_asi.compression.graph import analyse
from fed_asi.errors import BudgetError, ConfigError
from fed_asi.layers import slices_of
from fed_asi.memory.device import DeviceMemory, device_memory
from fed_asi.memory.stored import TrainedFormat
from fed_asi.methods import Frozen
from fed_asi.planning.bench import Bench, Rule
from fed_asi.planning.calibration import profile
from fed_asi.planning.plan import Plan
from fed_asi.planning.profile import Profile
from fed_asi.planning.question import Options, ask
from fed_asi.planning.whole_device import DevicePlanner, plan_device
from fed_asi.planning.within import Within
from fed_asi.training.at_once import SgdWithParts, at_once


class Net(nn.Module):
    """A convolution with a way around it behind another one, and a classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3, padding=1)
        self.body = nn.Conv2d(6, 6, 3, padding=1)
        self.relu = nn.ReLU()
        self.head = nn.Linear(6, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.relu(self.stem(x))
        return self.head((x + self.relu(self.body(x))).mean((2, 3)))


RULES = {
    "layer": Rule("applied", mover=partial(at_once, clip_norm=1.0)),
    "step": Rule("accumulated", optimizer=partial(SgdWithParts, clip_norm=1.0)),
    "held": Rule("held", optimizer=partial(SgdWithParts, clip_norm=1.0)),
}
METHODS = ("bias", "quantized", "vanilla")
FEW = ("bias", "vanilla")
Tried = list[tuple[float, DeviceMemory]]


@pytest.fixture(scope="module")
def net() -> nn.Module:
    torch.manual_seed(0)
    return Net().train()


@pytest.fixture(scope="module")
def images() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(2, 3, 8, 8, generator=generator), torch.tensor([1, 2])


@pytest.fixture(scope="module")
def made(net: nn.Module, images: tuple[torch.Tensor, torch.Tensor]) -> Profile:
    names = ["stem", "body", "head"]
    return profile(
        net, *images, trained=names, micro_batches=(1, 2), methods=METHODS, centered=False, grid=False
    )


def every_plan(
    made: Profile,
    net: nn.Module,
    images: tuple[torch.Tensor, torch.Tensor],
    rule: Rule,
    methods: tuple[str, ...],
    trained_as: TrainedFormat,
) -> Tried:
    """What each plan that may be asked for is worth and needs, each traced by itself."""
    question, graph = ask(made, Options(methods=methods, centered=False)), analyse(net)
    energies = {layer.name: layer.channel_energies for layer in made.layers}
    found = []
    for b in made.micro_batches:
        forms = [question.candidates(layer, b) for layer in made.layers]
        for picks in itertools.product(*forms):
            chosen = dict(zip((layer.name for layer in made.layers), picks, strict=True))
            value = sum(question.value(layer, chosen[layer.name]) for layer in made.layers)
            methods_of = {name: c.method for name, c in chosen.items() if not isinstance(c.method, Frozen)}
            compress_known_(net, graph, methods_of, energies=energies)
            found.append((value, needed(net, images, b, rule, trained_as)))
    return found


def needed(
    net: nn.Module,
    images: tuple[torch.Tensor, torch.Tensor],
    b: int,
    rule: Rule,
    trained_as: TrainedFormat,
) -> DeviceMemory:
    x, y = images[0].contiguous(memory_format=torch.channels_last), images[1]
    how = {"gradients": rule.gradients, "optimizer": rule.optimizer, "mover": rule.mover}
    return device_memory(net, x[:b], y[:b], trained_as=trained_as, **how)


MANY = (pytest.mark.slow, pytest.mark.computes)


@pytest.mark.slow
@pytest.mark.computes
def test_a_device_has_the_same_plan_whoever_was_asked_for_before(
    made: Profile, net: nn.Module, images: tuple[torch.Tensor, torch.Tensor]
) -> None:
    """Many plans of the small network are worth the same, or the same but for a millionth."""

    def planner() -> DevicePlanner:
        return DevicePlanner(made, Bench(net, *images, RULES["layer"]), methods=METHODS, centered=False)

    def plan_of(planner: DevicePlanner, ram: int) -> Plan | None:
        try:
            return planner.best(Within.of(ram, None, None, None)).plan
        except BudgetError:
            return None

    limits = (6_000, 10_000, 16_000)
    alone, shared, other = [plan_of(planner(), ram) for ram in limits], planner(), planner()
    assert [plan_of(shared, ram) for ram in limits] == alone
    assert [plan_of(other, ram) for ram in reversed(limits)] == alone[::-1]
    assert None not in alone[1:]


@pytest.mark.parametrize(
    ("name", "methods", "trained_as"),
    [
        ("layer", FEW, "float32"),
        ("layer", FEW, "float16"),
        pytest.param("layer", METHODS, "float32", marks=MANY),
        pytest.param("step", METHODS, "float32", marks=MANY),
        pytest.param("step", METHODS, "float16", marks=MANY),
        pytest.param("held", METHODS, "float32", marks=MANY),
    ],
)
def test_it_is_the_best_of_all_plans_traced_one_by_one(
    name: str,
    methods: tuple[str, ...],
    trained_as: TrainedFormat,
    made: Profile,
    net: nn.Module,
    images: tuple[torch.Tensor, torch.Tensor],
) -> None:
    rule = RULES[name]
    tried = every_plan(made, net, images, rule, methods, trained_as)
    assert len(tried) > 12
    bench = Bench(net, *images, rule, trained_as=trained_as)
    sizes = sorted({memory.ram_bytes for _, memory in tried})
    planner, traced = DevicePlanner(made, bench, methods=methods, centered=False), 0
    for ram in sizes[:: max(1, len(sizes) // 5)]:
        best = max(value for value, memory in tried if memory.ram_bytes <= ram)
        found = planner.best(Within(ram))
        assert found.plan.value == pytest.approx(best, rel=1e-9)
        assert found.memory.ram_bytes <= ram
        traced += found.traced
    assert traced < len(tried) // 2
    with pytest.raises(
        BudgetError, match=r"below the smallest step, .*the step needs .* Largest in the step: .* shrink"
    ):
        plan_device(made, bench, ram=sizes[0] - 1, methods=methods, centered=False)


@pytest.mark.parametrize("name", RULES)
def test_plans_of_channels_are_the_best_too_whenever_weights_move(
    name: str, net: nn.Module, images: tuple[torch.Tensor, torch.Tensor]
) -> None:
    """Gradients that are held or accumulated are those of the channels, not of whole weights."""
    asked = {"methods": ("bias", "channels"), "centered": False}
    made = profile(net, *images, trained=["body", "head"], micro_batches=(1,), grid=False, **asked)
    tried = every_plan(made, net, images, RULES[name], asked["methods"], "float32")
    planner = DevicePlanner(made, Bench(net, *images, RULES[name]), **asked)
    sizes = sorted({memory.ram_bytes for _, memory in tried})
    assert len(sizes) > 8
    for ram in sizes:
        best = max(value for value, memory in tried if memory.ram_bytes <= ram)
        assert planner.best(Within(ram)).plan.value == pytest.approx(best, rel=1e-9)


def test_flash_and_a_reserve_count(
    made: Profile, net: nn.Module, images: tuple[torch.Tensor, torch.Tensor]
) -> None:
    bench = Bench(net, *images, RULES["layer"])
    free = plan_device(made, bench, methods=METHODS, centered=False)
    most = free.memory.ram_bytes
    assert (
        plan_device(made, bench, ram=most, methods=METHODS, centered=False).plan.methods == free.plan.methods
    )
    held = plan_device(made, bench, ram=most, reserve=64, methods=METHODS, centered=False)
    assert held.memory.ram_bytes <= most
    assert held.memory.reserve_bytes == 64
    assert held.plan.micro_batch < free.plan.micro_batch
    least = free.memory.constant_bytes
    weights = sum(t.nbytes for t in net.parameters())
    tight = plan_device(made, bench, flash=least, methods=METHODS, centered=False)
    assert tight.memory.trained_bytes == weights  # nothing may be frozen
    with pytest.raises(BudgetError, match=r"^flash .* is below what is only read"):
        plan_device(made, bench, flash=least, ram=free.memory.ram_bytes // 3, methods=METHODS, centered=False)


def test_methods_whose_bytes_follow_the_data_are_refused(
    made: Profile, net: nn.Module, images: tuple[torch.Tensor, torch.Tensor]
) -> None:
    asked = {"methods": ("hosvd(epsilon=0.8)",), "centered": False}
    loose = profile(net, *images, trained=["body", "head"], micro_batches=(1,), **asked)
    with pytest.raises(ConfigError, match="ram: the bytes of hosvd depend on the data"):
        plan_device(
            loose, Bench(net, *images, RULES["layer"]), ram="1 MiB", methods=("hosvd",), centered=False
        )


def read_in_eight_bits(net: nn.Module) -> int:
    """Return the bytes of what a compressed network only reads: a byte a number, and four a row; biases whole."""
    parts, found = slices_of(net), 0
    for name, p in net.named_parameters():
        rows = len(p)
        if p.requires_grad and name not in parts:
            continue
        if name in parts:
            kept = len(parts[name].index)
            numbers = p.numel() // p.shape[1] * (p.shape[1] - kept)
            found += numbers + 4 * rows * (numbers > 0)
        else:
            found += p.numel() + 4 * rows if p.dim() > 1 else 4 * p.numel()
    return found


def test_flash_in_eight_bits_counts_what_each_plan_reads(
    net: nn.Module, images: tuple[torch.Tensor, torch.Tensor]
) -> None:
    methods = ("bias", "channels", "vanilla")
    asked = {"methods": methods, "centered": False}
    made = profile(net, *images, trained=["stem", "body", "head"], micro_batches=(1,), grid=False, **asked)
    question, graph = ask(made, Options(**asked)), analyse(net)
    energies = {layer.name: layer.channel_energies for layer in made.layers}
    tried = []
    for picks in itertools.product(*(question.candidates(layer, 1) for layer in made.layers)):
        pairs = list(zip(made.layers, picks, strict=True))
        methods_of = {one.name: c.method for one, c in pairs if not isinstance(c.method, Frozen)}
        compress_known_(net, graph, methods_of, energies=energies)
        tried.append((sum(question.value(one, c) for one, c in pairs), read_in_eight_bits(net)))
    planner = DevicePlanner(made, Bench(net, *images, RULES["layer"], storage="int8"), **asked)
    constants = planner.best(Within()).memory.constant_bytes  # of every form that trains a weight
    sizes = sorted({size for _, size in tried})
    assert len(sizes) > 20
    for flash in sizes[:: len(sizes) // 6]:
        best = max(value for value, size in tried if size <= flash)
        found = planner.best(Within(None, flash + constants))
        assert found.plan.value >= best - 1e-9
        assert found.memory.flash_bytes <= flash + constants
        assert (pytest.approx(found.plan.value, rel=1e-9), found.memory.frozen_bytes) in tried
