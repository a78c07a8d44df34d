"""Plans made from a calibration: their bytes against the meter, and how much of a budget they use."""

from __future__ import annotations

import copy
import json
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fed_asi import layers, models
from fed_asi.compression.compress import compress_
from fed_asi.errors import ConfigError
from fed_asi.memory.meter import ActivationMeter
from fed_asi.methods.family import parse
from fed_asi.planning.calibration import profile
from fed_asi.planning.plan import Plan
from fed_asi.planning.profile import Profile
from fed_asi.planning.search import plan, smallest_plan_bytes
from fed_asi.training.sgd import Sgd
from fed_asi.training.steps import Stepper
from networks import Decoder


@pytest.fixture(scope="module")
def dense() -> Profile:
    """Eight layers at the default density, from 16 images."""
    generator = torch.Generator().manual_seed(3)
    x, y = torch.randn(16, 3, 16, 16, generator=generator), torch.randint(0, 10, (16,), generator=generator)
    model = models.build("tiny", 10, None, 16)
    names = [n for n, m in model.named_modules() if isinstance(m, (nn.Conv2d, nn.Linear))]
    return profile(model, x, y, trained=names[-8:], micro_batches=(1, 4, 16))


@pytest.mark.slow
@pytest.mark.computes
def test_a_profile_holds_what_plans_of_the_same_words_may_take(
    model: nn.Module, batch: tuple[Tensor, Tensor], made: Profile
) -> None:
    """Of fewer forms tried no plan is worse, and what was left out is asked for by name."""
    usual = profile(model, *batch, micro_batches=(1, 4, 8), density=4)
    plain = profile(model, *batch, micro_batches=(1, 4, 8), density=4, centered=False)
    tried = [sum(len(c) for layer in one.layers for c in layer.candidates.values()) for one in (usual, made)]
    assert tried[0] < tried[1]
    for budget in (None, "6 KiB", "12 KiB", "40 KiB"):
        assert plan(usual, budget).value >= plan(made, budget).value
        assert plan(plain, budget, centered=False).value >= plan(made, budget, centered=False).value
    with pytest.raises(ConfigError, match=r"profile\(\.\.\., grid=True\)"):
        plan(usual, None, methods=("asi",), selection="published")
    with pytest.raises(ConfigError, match=r"profile\(\.\.\., centered=None\)"):
        plan(usual, None, methods=("asi",), centered=False)
    assert plan(usual, None, methods=("vanilla", "mean"), centered=False).value > 0
    again = Profile.from_json(usual.to_json())
    assert (again.centered, again.grid) == (True, False)
    held = json.loads(usual.to_json()) | {"version": 2}
    del held["centered"], held["grid"]
    assert Profile.from_json(json.dumps(held)).grid  # of a release that tried everything


@pytest.mark.few(4)
@pytest.mark.parametrize("methods", [None, ("asi",), ("quantized", "bias"), ("vanilla",)])
@pytest.mark.parametrize("budget", ["2 KiB", "5 KiB", "40 KiB", None])
def test_planned_bytes_are_the_meters(
    model: nn.Module,
    batch: tuple[Tensor, Tensor],
    made: Profile,
    methods: tuple[str, ...] | None,
    budget: str,
) -> None:
    chosen = plan(made, budget, methods=methods)
    compressed = copy.deepcopy(model).train()
    compress_(compressed, chosen)
    meter = ActivationMeter(compressed)
    x, y = batch[0][: chosen.micro_batch].clone(), batch[1][: chosen.micro_batch].clone()
    for _ in range(3):
        with meter:
            loss = F.cross_entropy(compressed(x), y)
        assert meter.saved_bytes == chosen.planned_bytes
        loss.backward()
        layers.commit_factors_(compressed)


def test_training_counts_the_gradients_of_every_trained_parameter(
    model: nn.Module, batch: tuple[Tensor, Tensor], made: Profile
) -> None:
    chosen = plan(made, "64 KiB", count="training")
    inside = plan(made, "64 KiB", count="training", update="micro-batch")
    compressed = copy.deepcopy(model).train()
    compress_(compressed, chosen)
    trained = sum(p.numel() for p in compressed.parameters() if p.requires_grad)
    with ActivationMeter(compressed) as meter:
        size = chosen.micro_batch
        loss = F.cross_entropy(compressed(batch[0][:size].clone()), batch[1][:size].clone())
    assert meter.saved_bytes + 4 * trained == chosen.planned_bytes
    assert inside.value >= chosen.value * (1 - 1e-9)  # equal plans may add up in another order
    del loss


@pytest.mark.parametrize("layers", [None, "all"])
def test_training_layer_by_layer_counts_what_the_stepper_does(
    model: nn.Module, batch: tuple[Tensor, Tensor], made: Profile, layers: str | None
) -> None:
    chosen = plan(made, "64 KiB", count="training", update="layer", layers=layers)
    tail = copy.deepcopy(model).train()
    compress_(tail, chosen)
    optimizer = Sgd(tail.named_parameters(), clip_norm=2.0)
    options = {"micro_batch": chosen.micro_batch, "covers": "training", "update": "layer"}
    one = Stepper(tail, optimizer, budget_bytes=chosen.planned_bytes, **options)
    one.step_(*batch, 0.01)
    assert one.largest.saved_bytes + one.accumulator_bytes == chosen.planned_bytes
    whole = plan(made, "64 KiB", count="training", layers=layers)
    assert chosen.value >= whole.value * (1 - 1e-9)


def test_published_plans_of_warm_factors_are_the_meters_too(
    model: nn.Module, batch: tuple[Tensor, Tensor], made: Profile
) -> None:
    chosen = plan(made, None, selection="published", layers="last 3", micro_batch=8)
    compressed = copy.deepcopy(model).train()
    compress_(compressed, chosen)
    meter = ActivationMeter(compressed)
    for _ in range(3):
        with meter:
            loss = F.cross_entropy(compressed(batch[0]), batch[1])
        loss.backward()
        layers.commit_factors_(compressed)
    assert meter.saved_bytes == chosen.planned_bytes


FORMS = ["asi", "quantized", "vanilla", "hosvd(epsilon=0.9)", "fixed", "filter(patch=2)"]


@pytest.fixture(scope="module")
def every_form(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Profile:
    return profile(model, *batch, micro_batches=(1, 8), methods=(*FORMS, "bias"), density=4)


@pytest.mark.parametrize("text", ["hosvd(epsilon=0.9)", "fixed", "filter(patch=2)"])
def test_rivals_are_profiled_with_the_bytes_a_step_keeps(
    model: nn.Module, batch: tuple[Tensor, Tensor], every_form: Profile, text: str
) -> None:
    """Where ranks depend on the data, bytes are those of the calibration batch."""
    x, y = batch
    chosen = plan(every_form, None, methods=(text,), micro_batch=len(x))
    assert parse(text).value() in chosen.methods.values()
    compressed = copy.deepcopy(model).train()
    compress_(compressed, chosen)
    with ActivationMeter(compressed) as meter:
        loss = F.cross_entropy(compressed(x), y)
    assert meter.saved_bytes == chosen.planned_bytes
    assert bool(chosen.notes) is (text != "filter(patch=2)")
    del loss


@pytest.mark.few(2)
@pytest.mark.parametrize("micro_batch", [1, 4, 16])
@pytest.mark.parametrize("methods", [None, ("asi",)])
def test_every_budget_is_used_or_buys_nothing_more(
    dense: Profile, micro_batch: int, methods: tuple[str, ...] | None
) -> None:
    """At least 95 % of a budget is used, or less than one part in 200 of the gradient is lost."""
    options: dict[str, Any] = {"layers": "all", "methods": methods, "micro_batch": micro_batch}
    exact = plan(dense, None, **options)
    energy = sum(layer.centered_energy for layer in dense.layers)
    assert all(dense.layer(name).centered_energy > 0 for name in exact.methods)
    for budget in np.geomspace(smallest_plan_bytes(dense, **options), exact.planned_bytes, 60).astype(int):
        chosen = plan(dense, int(budget), **options)
        lost = (exact.value - chosen.value) / energy
        assert chosen.planned_bytes >= 0.95 * budget or lost < 0.005, (budget, chosen.planned_bytes, lost)


def test_tucker_forms_of_full_rank_are_exact_in_the_bytes_of_the_whole(dense: Profile) -> None:
    for micro_batch in (1, 4, 16):
        exact = plan(dense, None, layers="all", methods=("asi",), micro_batch=micro_batch)
        whole = plan(dense, None, layers="all", methods=("vanilla", "mean"), micro_batch=micro_batch)
        assert exact.planned_bytes <= whole.planned_bytes
        assert exact.value == pytest.approx(whole.value, rel=1e-9)
        assert {exact.methods[layer.name].kind for layer in dense.layers if not layer.head} == {"asi"}


@pytest.mark.few(4)
@pytest.mark.parametrize("text", FORMS)
@pytest.mark.parametrize("micro_batch", [1, 8])
def test_the_papers_count_is_planned_as_it_is_measured(
    model: nn.Module, batch: tuple[Tensor, Tensor], every_form: Profile, text: str, micro_batch: int
) -> None:
    x, y = batch
    chosen = plan(every_form, None, methods=(text, "bias"), micro_batch=micro_batch, count="published")
    assert parse(text).kind in {method.kind for method in chosen.methods.values()}
    compressed = copy.deepcopy(model).train()
    compress_(compressed, chosen)
    largest = 0
    for detailed in (True, False):
        meter = ActivationMeter(compressed, detailed=detailed)
        for start in range(0, len(x), micro_batch):
            part = slice(start, start + micro_batch)
            with meter:
                loss = F.cross_entropy(compressed(x[part].clone()), y[part].clone())
            largest = max(largest, meter.published_bytes)
        if text.startswith("hosvd"):  # planned is the sum of each layer's largest micro-batch
            assert 0 < largest <= chosen.planned_bytes
        else:
            assert largest == chosen.planned_bytes
    del loss


def test_a_transposed_convolution_is_profiled_planned_and_measured(batch: tuple[Tensor, Tensor]) -> None:
    torch.manual_seed(0)
    net, (x, y) = Decoder(), batch
    made = profile(net, x, y, micro_batches=[len(x)])
    layer = made.layer("up")
    exact = torch.autograd.grad(F.cross_entropy(net(x), y), net.up.weight)[0]
    assert layer.weight_norm == pytest.approx(float(exact.norm()), rel=1e-4)
    assert {c.method.kind for c in layer.candidates[len(x)]} >= {"asi", "quantized", "vanilla"}
    chosen = plan(made, None, methods=("asi",), layers=["up"])
    compressed = copy.deepcopy(net).train()
    compress_(compressed, chosen)
    with ActivationMeter(compressed) as meter:
        loss = F.cross_entropy(compressed(x.clone()), y.clone())
    loss.backward()
    assert meter.saved_bytes == chosen.planned_bytes
    assert compressed.up.weight.grad is not None


def test_a_plan_brings_the_subspaces_that_calibration_found(
    model: nn.Module, batch: tuple[Tensor, Tensor]
) -> None:
    x, y = batch
    made = profile(model, x, y, micro_batches=[4], methods=("fixed",))
    chosen = plan(made, None, methods=("fixed",))
    again = Plan.from_json(Profile.from_json(made.to_json()) and chosen.to_json())
    assert again.bases == chosen.bases != {}
    kept = []
    for first_batch in (x[:4], -3.0 * x[4:]):  # whatever a device's first batch is
        compressed = copy.deepcopy(model).train()
        compress_(compressed, again)
        compressed(first_batch.clone())
        kept.append({name: state.factors for name, _, state in layers.compressed_layers(compressed)})
    for name in chosen.bases:
        for one, other in zip(kept[0][name], kept[1][name], strict=True):
            assert (one is None) == (other is None)
            assert one is None or torch.equal(one, other)


def test_masks_that_fill_no_whole_byte_are_planned_as_they_are_measured() -> None:
    """Nine bits a sample: of 1, 2 and 8 samples their bytes lie on a line, of 16 they do not."""
    net = nn.Sequential(nn.Conv2d(3, 1, 1), nn.ReLU(), nn.Conv2d(1, 2, 1), nn.Flatten(), nn.Linear(18, 3))
    x, y = torch.randn(16, 3, 3, 3, generator=torch.Generator().manual_seed(0)), torch.arange(16) % 3
    made = profile(net, x, y, micro_batches=[16], methods=("vanilla",))
    chosen = plan(made, None, methods=("vanilla",), layers="all")
    compress_(net.train(), chosen)
    with ActivationMeter(net) as meter:
        loss = F.cross_entropy(net(x.clone()), y)
    assert meter.saved_bytes == chosen.planned_bytes
    del loss
