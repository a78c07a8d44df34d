"""Checks of a fleet file's values against each other, the machine, and what is registered."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from fed_asi import data, models
from fed_asi.data import engines, shards
from fed_asi.fleets import over_budget
from fed_asi.fleets.checks import check
from fed_asi.fleets.file import load_config
from fleet_file import GOOD, problems_of


def test_the_loop_needs_no_free_cpus(write):
    assert load_config(write(GOOD), ["compute.backend=loop", "compute.cpus_per_client=64"], cpus=1)


def test_an_engine_of_the_trunk_must_be_there_and_have_something_to_do(write, monkeypatch):
    asked = ["compute.trunk_engine=onnxruntime"]
    monkeypatch.setattr(engines, "PACKAGES", ("no-such-package",))
    assert problems_of(write(GOOD), *asked) == [
        'compute.trunk_engine: "onnxruntime" needs no-such-package, which is missing: pip install "fed-asi[fast]", '
        'or leave it "torch"'
    ]
    monkeypatch.setattr(engines, "PACKAGES", ("numpy",))
    assert load_config(write(GOOD), asked)
    assert problems_of(write(GOOD), *asked, "compute.features=off") == [
        'compute.trunk_engine: "onnxruntime" computes features to store, but features = "off" stores none'
    ]


def test_gradients_at_the_batch_s_start_need_weights_that_move_within_it_and_nothing_else(write):
    asked = ["compute.gradients_at=batch", "train.update=layer", "train.momentum=0", "train.clip_norm=off"]
    assert load_config(write(GOOD), asked)
    start = (
        'compute.gradients_at: "batch" computes the gradients of a batch with the weights from its start, '
    )
    for changed, said in {
        "train.update=step": 'which train.update = "step" does anyway. Leave it out',
        "train.momentum=0.9": "and momentum builds up from micro-batch to micro-batch. Set train.momentum = 0",
        "compute.side_by_side=false": "to have them side by side, and compute.side_by_side is false. Leave one out",
    }.items():
        assert problems_of(write(GOOD), *asked, changed) == [start + said]
    by_micro_batch = [*asked[:1], "train.update=micro-batch", "train.momentum=0", "train.clip_norm=2"]
    assert problems_of(write(GOOD), *by_micro_batch) == [
        f'{start}and train.update = "micro-batch" clips each over all layers, which takes them one by one. Set '
        'train.clip_norm = "off", or train.update = "layer", which clips by layer'
    ]
    asked[0] = "compute.gradients_at=16"
    assert problems_of(write(GOOD), *asked, "train.momentum=0.9")[0].startswith(
        "compute.gradients_at: 16 computes the gradients of 16 images with the weights from their start, and momentum"
    )


def test_devices_twice_or_outside_are_named(write):
    devices = "".join(f"[[devices]]\npartition_id = {i}\nbudget = 9000\n" for i in (1, 1, 9))
    assert problems_of(write(GOOD + devices)) == [
        "devices: partition_id 1 is given 2 times",
        "devices: partition_id 9: the fleet has devices 0 to 4",
    ]


def _register_all() -> None:
    models.register("my-network", lambda classes, _: models.build("tiny", classes))
    data.register("my-data", lambda *_: data.load("digits"))
    shards.register("my-scheme", shards.Iid)
    over_budget.register("my-policy", lambda *_: ())


OWN = {
    "model.name": (
        "my-network",
        "my-netwrk",
        "model.name: unknown network 'my-netwrk'; did you mean my-network?",
    ),
    "data.source": (
        "my-data",
        "my-dta",
        "data.source: unknown 'my-dta'; did you mean my-data? Or an .npz file's path",
    ),
    "sharding.scheme": (
        "my-scheme",
        "my-shceme",
        "sharding.scheme: unknown 'my-shceme'; did you mean my-scheme?",
    ),
    "method.over_budget": (
        "my-policy",
        "my-polcy",
        "method.over_budget: unknown 'my-polcy'; did you mean my-policy?",
    ),
}


@pytest.mark.parametrize("key", OWN)
def test_names_are_those_that_are_registered(write: Callable, own_names: None, key: str) -> None:
    name, mistaken, expected = OWN[key]
    assert len(problems_of(write(GOOD), f"{key}={name}")) == 1
    _register_all()
    load_config(write(GOOD), [f"{key}={name}"], cpus=4)
    assert problems_of(write(GOOD), f"{key}={mistaken}") == [expected]


def test_unknown_names_are_said_beside_another_mistake_in_their_table(write: Callable) -> None:
    changes = ["method.layers=0", "method.over_budget=x", "sharding.alpha=0", "sharding.scheme=x"]
    starts = [problem.partition(":")[0] for problem in problems_of(write(GOOD), *changes)]
    assert sorted(starts) == ["method.layers", "method.over_budget", "sharding.alpha", "sharding.scheme"]


def test_a_stand_in_is_not_judged(write: Callable) -> None:
    config = load_config(write(GOOD), cpus=4)
    unknown = config.model_copy(update={"data": config.data.model_copy(update={"source": "nowhere"})})
    assert [problem.partition(":")[0] for problem in check(unknown, (), 4)] == ["data.source"]
    assert not check(unknown, {"data.source"}, 4)
    assert not check(unknown, {"data"}, 4)
