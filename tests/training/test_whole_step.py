"""A device with a RAM limit: its plan equals its step's count, and a step above it is out of memory, by phase."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from fed_asi.devices.reply import answer
from fed_asi.devices.work import train_locally
from fed_asi.errors import BudgetError, ConfigError
from fed_asi.fleets.config import TrainConfig
from fed_asi.fleets.resources import Resources
from fed_asi.planning.device_plans import DevicePlans
from fed_asi.results.store import RunStore
from fed_asi.rounds.run import run_loop
from fed_asi.training.rules import rules_of
from fed_asi.workplace.place import Workplace
from fed_asi.workplace.prepare import prepare
from runs import job, small

RAM = 64 * 1024
SMALL = Resources(None, 8, ram_bytes=RAM, flash_bytes=1024 * 1024, reserve_bytes=1024)


def fleet(ram: str, flash: str = "1 MiB", **changes: Any) -> Any:
    group = {
        "name": "small",
        "count": 6,
        "budget": "unlimited",
        "batch_size": 8,
        "ram": ram,
        "flash": flash,
    }
    return small(train={"update": "layer"}, groups=[{**group, "reserve": "1 KiB"}], **changes)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Workplace:
    folder = tmp_path_factory.mktemp("run")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FED_ASI_FEATURES_DIR", str(folder / "features"))
        return prepare(fleet("64 KiB"), folder / "workplace")


def test_what_is_planned_is_what_the_step_counts(place: Workplace) -> None:
    planned = place.plans.whole(SMALL)
    result = train_locally(place, job(SMALL), place.reference)
    assert result.stats["outcome"] == "trained", result.stats
    assert result.stats["ram_bytes"] == planned.memory.ram_bytes <= RAM
    assert result.stats["flash_bytes"] == planned.memory.flash_bytes
    assert result.stats["measured_bytes"] == pytest.approx(planned.memory.step.saved_bytes, abs=16)
    free = train_locally(place, job(Resources(None, 8)), place.reference)
    assert "ram_bytes" not in free.stats


@pytest.mark.parametrize(("key", "what"), [("ram_bytes", "of RAM"), ("flash_bytes", "of flash")])
def test_a_step_above_it_is_out_of_memory_by_phase_and_tensors(place: Workplace, key: str, what: str) -> None:
    plan = place.plans.first(SMALL)
    less = replace(SMALL, **{key: 2 * 1024})
    result = train_locally(place, job(less), place.reference, plan=plan)
    assert result.stats["outcome"] == "out-of-memory"
    assert f"{what}, and the device has 2.0 KiB" in result.stats["cause"]
    assert "Largest in the " in result.stats["cause"]
    assert result.stats[key] > 2 * 1024
    assert not result.tensors


def test_a_device_that_is_too_small_is_left_out_with_its_phase(place: Workplace) -> None:
    result = train_locally(place, job(replace(SMALL, ram_bytes=8 * 1024)), place.reference)
    assert result.stats["outcome"] == "excluded"
    assert "ram 8.0 KiB is below the smallest step" in result.stats["cause"]


@pytest.mark.slow
@pytest.mark.computes
def test_a_device_that_its_policy_has_a_plan_for_is_not_said_to_have_none(
    place: Workplace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FED_ASI_FEATURES_DIR", str(tmp_path / "features"))
    least = place.plans.whole(replace(SMALL, micro_batch=1)).memory.ram_bytes
    fewer = fleet(f"{least - 1} B", method={"over_budget": "fewer-layers"}, rounds=1, cohort=1)
    run_loop(fewer, tmp_path / "run")
    with RunStore.read(tmp_path / "run") as store:
        (row,) = store.device_rounds()
        assert not [text for text in store.notes() if "no plan" in text]
    assert (row.outcome, row.policy) == ("trained", "fewer-layers")


def test_a_profile_alone_cannot_tell(place: Workplace) -> None:
    config = place.config
    alone = DevicePlans(place.plans.profile, config.method, config.train)
    with pytest.raises(ConfigError, match="need the network"):
        alone.first(SMALL)


@pytest.mark.parametrize(
    ("ram", "changes", "expected"),
    [
        (
            "8 KiB",
            {},
            r"no device can do a step: ram 8\.0 KiB is below the smallest step, [\d.]+ KiB: [\d.]+ KiB stay, the step "
            r"needs [\d.]+ KiB, 1\.0 KiB are reserved\. Largest in the step: .* These have to shrink: train fewer",
        ),
        (
            "64 KiB",
            {"flash": "1 KiB"},
            r"no device can do a step: flash 1\.0 KiB is below what is only read, [\d.]+ KiB: frozen weights",
        ),
        ("64 KiB", {"method": {"name": "hosvd"}}, "ram: the bytes of hosvd depend on the data"),
    ],
)
def test_what_no_device_can_do_ends_before_the_first_round(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ram: str, changes: dict[str, Any], expected: str
) -> None:
    monkeypatch.setenv("FED_ASI_FEATURES_DIR", str(tmp_path / "features"))
    with pytest.raises(ConfigError, match=expected):
        prepare(fleet(ram, **changes), tmp_path / "workplace")


def test_rules_follow_the_update_and_the_micro_batch() -> None:
    step = rules_of(TrainConfig(momentum=0.9), 8)
    assert (step(8).gradients, step(2).gradients, step(2).momentum) == ("held", "accumulated", True)
    assert rules_of(TrainConfig(update="micro-batch"), 8)(2).gradients == "held"
    layer = rules_of(TrainConfig(update="layer"), 8)(2)
    assert layer.gradients == "applied"
    assert layer.mover is not None


def test_a_device_moves_weights_as_its_plan_has_it(
    place: Workplace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FED_ASI_FEATURES_DIR", str(tmp_path / "features"))
    config = place.config.model_copy(update={"train": TrainConfig(update="any")})
    free = prepare(config, tmp_path / "workplace")
    single = replace(SMALL, micro_batch=1)
    assert free.plans.first(single).update == "step"
    tight = replace(single, ram_bytes=place.plans.whole(single).memory.ram_bytes)  # with nothing accumulated
    assert free.plans.first(tight).update == "layer"
    one, two = (train_locally(where, job(tight), where.reference) for where in (free, place))
    assert one.stats["ram_bytes"] == two.stats["ram_bytes"]
    assert all(torch.equal(tensor, two.tensors[name]) for name, tensor in one.tensors.items())
    twin, _ = answer(free, replace(job(tight), twin="unlimited"), free.reference, None)
    assert (twin.stats["twin_cosine"], twin.stats["twin_norm_ratio"]) == (
        1.0,
        1.0,
    )  # it moves weights so, too
    without = train_locally(free, job(Resources(None, 8)), free.reference)
    assert without.stats["accumulator_bytes"] == sum(t.nbytes for t in without.tensors.values())


def test_a_budget_beside_ram_binds_too(place: Workplace) -> None:
    with pytest.raises(BudgetError, match=r"no plan is within the budget of 4 B and ram"):
        place.plans.first(replace(SMALL, budget_bytes=4))
