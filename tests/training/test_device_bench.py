"""Your own network planned for RAM and flash, through the package's public names."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

import fed_asi
from fed_asi.errors import BudgetError, ConfigError
from fed_asi.planning.bench import Bench
from fed_asi.planning.profile import Profile
from fed_asi.planning.whole_device import best_of, finest, plan_device
from fed_asi.planning.within import Within

TRAINED = ("blocks.2.inverted_bottleneck.conv", "classifier")
KIB = 1024
METHODS = ("bias", "channels", "vanilla")


@pytest.fixture(scope="module")
def network() -> tuple[nn.Module, torch.Tensor, torch.Tensor]:
    model = fed_asi.models.build("tiny", num_classes=4, resolution=16).eval()
    x = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    return model, x, torch.tensor([0, 3])


@pytest.fixture(scope="module")
def made(network: tuple[nn.Module, torch.Tensor, torch.Tensor]) -> Profile:
    return fed_asi.profile(*network, trained=TRAINED, micro_batches=(1, 2), methods=METHODS, grid=False)


@pytest.fixture(scope="module")
def benches(network: tuple[nn.Module, torch.Tensor, torch.Tensor]) -> list[Bench]:
    return [
        fed_asi.device_bench(*network, TRAINED, update=update, storage=form)
        for form in ("float32", "int8")
        for update in ("step", "layer")
    ]


def test_a_plan_by_ram_and_flash_is_the_best_of_its_benches(made: Profile, benches: list[Bench]) -> None:
    free = fed_asi.plan(made, flash="1 MiB", bench=benches, methods=METHODS)
    assert (free.update, free.storage) == ("step", "float32")
    each = [plan_device(made, bench, methods=METHODS) for bench in benches]
    assert free.methods == each[0].plan.methods
    assert "frozen weights are stored as float32" in str(free)
    flash = each[2].memory.flash_bytes
    assert flash < each[0].memory.flash_bytes / 2
    less = fed_asi.plan(made, flash=flash, bench=benches, methods=METHODS)
    assert (less.update, less.storage) == ("step", "int8")
    assert fed_asi.Plan.from_json(less.to_json()) == less


def test_of_equal_plans_the_first_is_taken_and_a_better_one_before_it() -> None:
    def planner(form: str, update: str, value: float | None) -> Any:
        def best(*_: object) -> Any:
            if value is None:
                raise BudgetError(f"{form} {update}")
            return SimpleNamespace(plan=SimpleNamespace(value=value, update=update, storage=form))

        return SimpleNamespace(bench=SimpleNamespace(storage=form), best=best)

    def chosen(*given: tuple[str, str, float | None]) -> tuple[str | None, str | None]:
        plan = best_of([planner(*one) for one in given], Within()).plan
        return plan.storage, plan.update

    four = [(form, update) for form in ("float32", "int8") for update in ("step", "layer")]
    for values, index in (
        ((1.0, 1.0, 1.0, 1.0), 0),
        ((1.0, 1.001, 1.005, 1.002), 1),
        ((1.0, 1.0, 1.02, 1.02), 2),
        ((None, None, 1.0, 1.5), 3),
        ((None, 0.1, None, None), 1),
    ):
        every = [(*pair, v) for pair, v in zip(four, values, strict=True)]
        assert chosen(*every) == four[index]
        assert chosen(*every[2:], *every[:2]) == four[index]  # in whatever order the formats come
    with pytest.raises(BudgetError, match="int8 layer"):
        chosen(*((*pair, None) for pair in four))


def test_what_cannot_be_counted_is_refused(made: Profile, benches: list[Bench]) -> None:
    with pytest.raises(ConfigError, match=r"has to be traced: give bench=fed_asi\.device_bench"):
        fed_asi.plan(made, ram="1 MiB")
    with pytest.raises(
        ConfigError, match="count 'training': needs a budget alone, as ram and flash count the whole step"
    ):
        fed_asi.plan(made, ram="1 MiB", bench=benches, count="training")


def test_the_network_is_only_read(network: tuple[nn.Module, torch.Tensor, torch.Tensor]) -> None:
    model, x, y = network
    before = {name: value.clone() for name, value in model.state_dict().items()}
    fed_asi.device_bench(model, x, y, TRAINED, storage="int8")
    assert not model.training
    assert all(p.requires_grad for p in model.parameters())
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_a_coarser_format_has_to_add_one_part_in_a_hundred() -> None:
    assert finest([100.0, 100.5, 100.9]) == 0
    assert finest([90.0, 99.5, 100.0]) == 1
    assert finest([90.0, 98.0, 100.0]) == 2
    assert finest([-100.5, -100.0]) == 0
    assert finest([-102.0, -100.0]) == 1


def test_a_device_too_small_for_the_trunk_by_layers_can_run_it_by_channels() -> None:
    model = fed_asi.models.build("mcunet", num_classes=4, resolution=64).eval()
    x, y = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0)), torch.tensor([1])
    names = ("blocks.10.inverted_bottleneck.conv", "classifier")
    made = fed_asi.profile(model, x, y, trained=names, micro_batches=(1,), methods=METHODS, grid=False)
    layer, channel = (
        fed_asi.device_bench(model, x, y, names, update="layer", storage="int8", trunk_by=by)
        for by in ("layer", "channel")
    )
    with pytest.raises(BudgetError, match=r"the trunk needs 40\.0 KiB.* run it by channels"):
        plan_device(made, layer, ram=40 * KIB, methods=METHODS)
    found = plan_device(made, channel, ram=40 * KIB, methods=METHODS).memory
    assert found.trunk is not None
    assert found.trunk.bytes == 28 * KIB < layer.trunk_bytes(1) == 40 * KIB
    assert found.ram_bytes <= 40 * KIB
