"""Steps, evaluation and pretraining on a device other than the CPU: the same numbers and bytes, and no waiting.

The device is that of second_device.py, whose numbers the CPU computes; what only a GPU can show is in
test_on_a_gpu.py.
"""

from __future__ import annotations

import copy
import json
from dataclasses import asdict
from typing import Any

import pytest
import torch
from torch import nn

from fed_asi.compression.compress import compress_
from fed_asi.fleets.config import PretrainConfig
from fed_asi.layers import convolution
from fed_asi.memory.arena.planned import arena
from fed_asi.methods import Channels, Method, Vanilla
from fed_asi.planning.calibration import profile
from fed_asi.training.evaluation import evaluate
from fed_asi.training.pretraining import pretrain_
from fed_asi.training.sgd import Sgd
from fed_asi.training.steps import Stepper, training_mode_
from second_device import HostWaitsError, assert_alike, numbers_of, second_device
from tails import FORMS, Tail, pooled, tail_of

QUICK = {"ASI, warm", "ASI, cold", "8 bits", "fixed subspace"}
METHODS = {name: method for name, method in FORMS.items() if method is not None and name != "HOSVD"}


def few(value: object, quick: bool = False) -> Any:
    """Return a case, which is a slow test's unless it is quick: the fast ones are few of each kind."""
    return pytest.param(value, marks=() if quick else (pytest.mark.slow, pytest.mark.computes))


@pytest.fixture(autouse=True)
def _no_quick_way(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let convolutions of few pixels be computed as on any other device."""
    monkeypatch.setattr(convolution, "FEW_ROWS", 0)


def stepper(tail: Tail, **options: Any) -> Stepper:
    """Return a stepper of a tail, with all that a device's optimizer may do."""
    optimizer = Sgd(tail.model.named_parameters(), momentum=0.9, weight_decay=1e-3, clip_norm=0.5)
    return Stepper(tail.model, optimizer, **{"micro_batch": 1, "budget_bytes": 1 << 30, **options})


def stepped(tail: Tail, **options: Any) -> tuple[list[torch.Tensor], list[float], int, int]:
    """Return weights, losses and counted bytes after three steps on the CPU."""
    one = stepper(tail, **options)
    losses = [float(one.step_(tail.x, tail.y, 0.1)) for _ in range(3)]
    return [p.detach().clone() for p in tail.model.parameters()], losses, *_bytes(one)


def _bytes(one: Stepper) -> tuple[int, int]:
    return one.largest.saved_bytes, one.largest.published_bytes


def stepped_there(tail: Tail, **options: Any) -> tuple[list[torch.Tensor], list[float], int, int]:
    """Return the same of a tail that is moved; in the second and third step nobody may wait."""
    with second_device() as device:
        tail.model.to(device.place)
        one, batch = stepper(tail, **options), (tail.x.to(device.place), tail.y.to(device.place))
        losses = [one.step_(*batch, 0.1)]
        with device.unattended():
            losses += [one.step_(*batch, 0.1) for _ in range(2)]
        weights = [numbers_of(p.detach()).clone() for p in tail.model.parameters()]
        return weights, [float(loss) for loss in losses], *_bytes(one)


def agree(tail: Tail, **options: Any) -> None:
    wanted, found = stepped(copy.deepcopy(tail), **options), stepped_there(copy.deepcopy(tail), **options)
    assert found[2:] == wanted[2:], "bytes are whole numbers"
    assert_alike(found[:2], wanted[:2])


@pytest.mark.few(2)
@pytest.mark.parametrize("name", [few(name, name in QUICK) for name in METHODS])
def test_steps_of_every_method_are_the_cpus_and_make_nobody_wait(name):
    agree(tail_of("tiny", METHODS[name], batch=3, micro_batch=1))


@pytest.mark.parametrize(
    "options",
    [
        {"update": "layer"},
        few({"update": "micro-batch"}),
        few({"side_by_side": False, "micro_batch": 2}),
        few({"covers": "training"}),
    ],
    ids=str,
)
def test_so_are_those_of_other_updates(options):
    agree(tail_of("tiny", METHODS["ASI, warm"], batch=3), **options)


@pytest.mark.slow
@pytest.mark.computes
def test_so_are_a_spatial_means_and_those_of_some_channels():
    agree(pooled(), micro_batch=2)
    tail = tail_of("mcunet", None)
    names = [
        n
        for n, m in tail.model.named_modules()
        if isinstance(m, (nn.Conv2d, nn.Linear)) and m.weight.requires_grad
    ]
    forms: dict[str, Method] = {name: Channels(2, centered=True) for name in names[:-1]}
    shapes = {
        n: m.weight.shape[1] * getattr(m, "groups", 1) for n, m in tail.model.named_modules() if n in forms
    }
    known = {name: torch.linspace(1, 2, count) for name, count in shapes.items()}
    compress_(tail.model, forms | {names[-1]: Vanilla()}, means=known, energies=known, micro_batch=1)
    training_mode_(tail.model)
    agree(tail)
    agree(tail, update="layer")


def test_ranks_that_the_data_decide_make_the_host_wait():
    """The one method of which that is said (tucker.py): the test above can fail."""
    with pytest.raises(HostWaitsError):
        stepped_there(tail_of("tiny", FORMS["HOSVD"], batch=2))


def test_compressing_a_network_that_is_there_already_is_the_same():
    wanted = stepped(tail_of("tiny", METHODS["ASI, cold"], micro_batch=1))
    tail = tail_of("tiny", None)
    with second_device() as device:
        tail.model.to(device.place)
        compress_(tail.model, METHODS["ASI, cold"], micro_batch=1)
        found = [numbers_of(p) for p in tail.model.parameters()]
    assert len(found) == len(wanted[0])
    agree_after = stepped_there(tail)
    assert_alike(agree_after[1:], wanted[1:])


def test_a_step_there_is_planned_and_counted_as_on_the_cpu():
    tail = tail_of("tiny", METHODS["ASI, warm"])
    wanted = arena(tail.model, tail.x, tail.y)
    with second_device() as device:
        tail.model.to(device.place)
        assert arena(tail.model, tail.x.to(device.place), tail.y.to(device.place)) == wanted


@pytest.mark.parametrize("there", [True, False])
def test_evaluation_waits_once_however_many_batches_there_are(there):
    tail = tail_of("tiny", None, batch=4)
    x, y = tail.x.repeat(40, 1, 1, 1), torch.arange(160) % 10
    wanted = evaluate(tail.model, x, y, 10)
    with second_device() as device:
        tail.model.to(device.place)
        given = (x.to(device.place), y.to(device.place)) if there else (x, y)
        before = len(device.waits)
        assert_alike(asdict(evaluate(tail.model, *given, 10)), asdict(wanted))
        assert (
            len(device.waits) - before == 2 + there
        )  # losses, what is right, and labels, not batch by batch


def test_pretraining_waits_once_an_epoch():
    settings = PretrainConfig(epochs=3, batch_size=4)
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(36, 3))
    other, x, y = copy.deepcopy(net), torch.randn(12, 3, 5, 5), torch.arange(12) % 3
    wanted = pretrain_(net, x, y, settings, seed=1)
    with second_device() as device:
        other.to(device.place)
        given = x.to(device.place), y.to(device.place)
        before = len(device.waits)
        assert_alike(pretrain_(other, *given, settings, seed=1), wanted)
        assert len(device.waits) - before == settings.epochs
        found = {name: numbers_of(p) for name, p in other.state_dict().items()}
    assert_alike(found, dict(net.state_dict()))


@pytest.mark.slow
@pytest.mark.computes
def test_calibration_there_finds_the_same_profile():
    tail = tail_of("tiny", None, batch=4)
    asked: dict[str, Any] = {"micro_batches": [1, 4], "density": 3, "grid": True}
    asked["methods"] = ["asi", "quantized", "fixed(epsilon=0.7)", "channels", "vanilla"]
    wanted = profile(tail.model, tail.x, tail.y, **asked)
    with second_device() as device:
        tail.model.to(device.place)
        found = profile(tail.model, tail.x.to(device.place), tail.y.to(device.place), **asked)
    assert_alike(json.loads(found.to_json()), json.loads(wanted.to_json()))
