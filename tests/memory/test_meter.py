"""The meter against a second oracle: weak references to every storage that any operation makes."""

from __future__ import annotations

import gc
from collections import deque
from collections.abc import Callable
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from fed_asi import layers, models
from fed_asi.compression.compress import compress_
from fed_asi.compression.tune import tune_last_
from fed_asi.errors import UnsupportedLayerError
from fed_asi.memory.meter import ActivationMeter
from fed_asi.methods import ASI, HOSVD, BiasOnly, FixedSubspace, GradientFilter, Quantized, Vanilla
from fed_asi.training.steps import training_mode_
from storage_watch import StorageWatch


def both(model: nn.Module, make: Callable[[], Tensor], loss_of: Callable[[nn.Module, Tensor], Tensor]) -> Any:
    """Return (meter, bytes alive by the watch) after a forward; only the scalar loss is still held."""
    gc.collect()
    gc.disable()
    try:
        with StorageWatch() as watch:
            meter = ActivationMeter(model)
            with meter:
                loss = loss_of(model, make())
        alive = watch.alive(model) - loss.untyped_storage().nbytes()
    finally:
        gc.enable()
    loss.backward()
    return meter, alive


def classify(model: nn.Module, x: Tensor) -> Tensor:
    y = torch.arange(len(x)) % 5
    return F.cross_entropy(model(x), y)


def images() -> Tensor:
    return torch.randn(3, 3, 12, 12, generator=torch.Generator().manual_seed(0))


class Residual(nn.Module):
    def __init__(self, act: nn.Module) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, padding=1)
        self.norm = nn.BatchNorm2d(3)
        self.act = act

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(x.mean((2, 3), keepdim=True)) + self.act(self.norm(self.conv(x)))


def network(act: nn.Module, training: bool) -> nn.Module:
    model = nn.Sequential(
        Residual(act),
        nn.MaxPool2d(2),
        nn.Dropout(0.5),
        nn.Conv2d(3, 6, 3, stride=2),
        nn.GroupNorm(2, 6),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(6, 5),
    )
    return model.train(training)


@pytest.mark.few(5)
@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize(
    "act",
    [nn.ReLU(), nn.ReLU(inplace=True), nn.ReLU6(), nn.Hardswish(), nn.SiLU(), nn.GELU(), nn.LeakyReLU()],
)
def test_meter_equals_the_second_oracle(act: nn.Module, training: bool) -> None:
    meter, alive = both(network(act, training), images, classify)
    assert meter.saved_bytes == alive
    assert sum(meter.by_layer.values()) == sum(meter.by_kind.values()) == alive > 0


def test_the_oracle_can_disagree() -> None:
    """A closure that keeps a tensor is the one thing the meter cannot see, and the watch does."""
    kept = []

    def hoard(model: nn.Module, x: Tensor) -> Tensor:
        kept.append(torch.ones(100))
        return classify(model, x)

    meter, alive = both(network(nn.ReLU(), False), images, hoard)
    assert alive - meter.saved_bytes == 400


class OnContext(torch.autograd.Function):
    """Keeps its tensors as plain attributes, in containers, where no saved-tensor hook looks."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.hidden = x * 2
        ctx.more = {"pair": [x + 1, (x + 2,)]}
        return x.clone()

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Tensor:  # type: ignore[override]
        return g * ctx.hidden.sign().abs()


class Hiding(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 5, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = OnContext.apply(self.conv(x))
        self.last = [x * 3]
        return F.adaptive_avg_pool2d(OnContext.apply(x), 1).flatten(1)


def test_tensors_on_contexts_and_modules_count() -> None:
    meter, alive = both(Hiding(), images, classify)
    assert meter.saved_bytes == alive
    assert meter.state_bytes == 3 * 5 * 144 * 4
    assert meter.by_layer["(model)"] == 7 * 3 * 5 * 144 * 4


def test_a_view_counts_its_whole_storage() -> None:
    model = nn.Linear(4, 2)
    meter, alive = both(model, lambda: torch.randn(1000, 4)[:3], lambda m, x: m(x).sum())
    assert meter.saved_bytes == alive == 16000


def test_checkpointing_is_seen() -> None:
    class Checkpointed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Sequential(nn.Conv2d(3, 8, 3), nn.SiLU(), nn.Conv2d(8, 5, 3), nn.SiLU())

        def forward(self, x: Tensor) -> Tensor:
            y = checkpoint(self.body, x, use_reentrant=False, preserve_rng_state=False)
            return F.adaptive_avg_pool2d(y, 1).flatten(1)

    meter, alive = both(Checkpointed(), images, classify)
    assert meter.saved_bytes == alive


def test_parameters_buffers_and_plain_inputs_do_not_count() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)).eval().requires_grad_(False)
    x = images().requires_grad_()
    with ActivationMeter(model) as meter:
        y = model[0](x)
    assert y.requires_grad
    assert meter.saved_bytes == 3 * 3 * 144 * 4  # the convolution's input alone, not its weight
    with torch.no_grad(), meter:
        y = model(x)
    assert (meter.saved_bytes, meter.by_layer, meter.published_bytes) == (0, {}, 0)


def test_published_count_is_the_inputs_of_trained_convolutions() -> None:
    model = network(nn.ReLU(), False)
    model[0].requires_grad_(False)
    with ActivationMeter(model) as meter:
        loss = classify(model, images())
    assert loss.requires_grad
    assert meter.published_bytes == 3 * 3 * 6 * 6 * 4


def test_a_graph_that_was_dropped_is_not_counted() -> None:
    model = network(nn.ReLU(), False)
    gc.collect()
    with ActivationMeter(model) as meter:
        classify(model, images())
    assert meter.saved_bytes == 0


def test_the_meter_leaves_results_hooks_and_memory_alone() -> None:
    model = network(nn.ReLU6(), False)
    classify(model, images()).backward()
    plain = [p.grad.clone() for p in model.parameters()]
    model.zero_grad()
    with ActivationMeter(model):
        loss = classify(model, images())
    loss.backward()
    assert all(torch.equal(a, p.grad) for a, p in zip(plain, model.parameters(), strict=True))
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def test_a_meter_measures_each_block_anew_even_after_a_failed_one() -> None:
    model = network(nn.ReLU(), False)
    meter = ActivationMeter(model)
    with pytest.raises(RuntimeError), meter:
        model(torch.randn(2, 9, 12, 12))
    with meter:
        first = classify(model, images())
    size = meter.saved_bytes
    with meter:
        second = classify(model, images())
    assert first.item() == second.item()
    assert meter.saved_bytes == size > 0
    assert not any(m._forward_hooks for m in model.modules())


def test_double_backward_works_under_the_meter() -> None:
    x = torch.randn(4, dtype=torch.float64, requires_grad=True)
    model = nn.Identity()
    with ActivationMeter(model):
        y = (model(x) ** 3).sum()
        (g,) = torch.autograd.grad(y, x, create_graph=True)
    (h,) = torch.autograd.grad(g.sum(), x)
    assert torch.allclose(h, 6 * x)


def test_side_by_side_micro_batches_share_the_bytes() -> None:
    model = nn.Linear(4, 2)
    x = torch.randn(6, 4)
    with ActivationMeter(model, micro_batches=4) as meter:
        loss = model(x).sum()
    assert loss.requires_grad
    assert (meter.saved_bytes, meter.per_micro_batch_bytes) == (96, 24)
    with pytest.raises(ValueError, match="micro_batches is 0"):
        ActivationMeter(model, micro_batches=0)


def test_sparse_tensors_count_and_opaque_ones_are_refused() -> None:
    dense = torch.eye(5)
    weight = torch.randn(5, 2, requires_grad=True)
    with ActivationMeter(nn.Identity()) as meter:
        loss = torch.sparse.mm(dense.to_sparse(), weight).sum()
    assert loss.requires_grad
    assert meter.saved_bytes == 2 * 5 * 8 + 5 * 4
    if torch.backends.mkldnn.is_available():
        x = torch.randn(2, 3, 4, 4).requires_grad_()
        with pytest.raises(UnsupportedLayerError, match="layout"), ActivationMeter(nn.Identity()):
            x.to_mkldnn().relu()


METHODS: list[Any] = [
    Vanilla(),
    Quantized(8),
    ASI((2, 2, 2, 2)),
    ASI((2, 2, 2, 2), order="published"),
    ASI((2, 2, 2, 2), warm=False, bits=8),
    HOSVD(0.8),
    FixedSubspace(0.8),
    GradientFilter(2),
    BiasOnly(),
]


@pytest.mark.few(5)
@pytest.mark.parametrize("method", [None, *METHODS], ids=str)
@pytest.mark.parametrize("micro_batches", [1, 2])
def test_the_meter_that_only_adds_up_measures_the_same(method: Any, micro_batches: int) -> None:
    """Over several steps, for factors, pending copies and masks come into being in the first ones."""
    torch.manual_seed(0)
    model = models.build("tiny", 5, None, 16)
    tune_last_(model, 3)
    training_mode_(model)
    if method is not None:
        compress_(model, method, micro_batch=4 // micro_batches)
    x = torch.randn(4, 3, 16, 16)
    detailed = ActivationMeter(model, micro_batches)
    total = ActivationMeter(model, micro_batches, detailed=False)
    for _ in range(3):
        for meter in (detailed, total):
            with meter:
                loss = classify(model, x)
            loss.backward()
        assert total.saved_bytes == detailed.saved_bytes > 0
        assert total.per_micro_batch_bytes == detailed.per_micro_batch_bytes
        assert total.state_bytes == detailed.state_bytes
        if method is not None:
            assert total.published_bytes == detailed.published_bytes
        assert not total.by_layer
        layers.commit_factors_(model)


def test_the_meter_that_only_adds_up_sees_growth_and_weights_that_moved() -> None:
    model = models.build("tiny", 5, None, 16)
    tune_last_(model, 2)
    training_mode_(model)
    compress_(model, Vanilla())
    meter = ActivationMeter(model, detailed=False)

    def kept(size: int) -> int:
        with meter:
            loss = classify(model, torch.randn(2, 3, size, size))
        del loss
        return meter.saved_bytes

    small = kept(16)
    assert kept(32) > 2 * small
    for parameter in model.parameters():
        parameter.data = parameter.data.clone()
    assert kept(16) == small
    model.__dict__["stash"] = [torch.zeros(100)]
    assert kept(16) == small + 400


class Holding(torch.autograd.Function):
    """Keeps its input somewhere on its context, out of autograd's sight."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, place: str) -> Tensor:
        kept = x.clone()
        if place == "deque":
            ctx.kept = deque([{"deep": (kept,)}])
        elif place == "object":
            ctx.kept = SimpleNamespace(inner=SimpleNamespace(tensor=kept))
        elif place == "closure":
            ctx.kept = lambda: kept
        elif place == "partial":
            ctx.kept = partial(torch.add, kept)
        return x * 2

    @staticmethod
    def backward(_ctx: Any, g: Tensor) -> tuple[Tensor, None]:
        return g * 2, None


class Held(nn.Module):
    def __init__(self, place: str) -> None:
        super().__init__()
        self.place, self.scale = place, nn.Parameter(torch.ones(1))

    def forward(self, x: Tensor) -> Tensor:
        return Holding.apply(x * self.scale, self.place)


@pytest.mark.parametrize("detailed", [True, False])
@pytest.mark.parametrize("place", ["deque", "object", "closure", "partial"])
def test_what_a_function_keeps_is_counted_wherever_it_lies(place: str, detailed: bool) -> None:
    x = torch.randn(16, 128)
    sizes = []
    for where in ("nowhere", place):
        net = Held(where)
        with ActivationMeter(net, detailed=detailed) as meter:
            out = net(x)
        sizes.append(meter.saved_bytes)
        del out
    assert sizes[1] - sizes[0] == x.nbytes == 8192


@pytest.mark.parametrize("detailed", [True, False])
def test_what_is_saved_on_another_device_is_counted(detailed: bool) -> None:
    class Away(nn.Module):
        def __init__(self, away: bool) -> None:
            super().__init__()
            self.net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3))
            self.away = away

        def forward(self, x: Tensor) -> Tensor:
            if not self.away:
                return self.net(x).sigmoid()
            with torch.autograd.graph.save_on_cpu():
                return self.net(x).sigmoid()

    before = torch.autograd.graph.saved_tensors_hooks.__enter__
    for away in (False, True):
        meter, alive = both(Away(away), lambda: torch.randn(2, 3, 8, 8), lambda net, x: net(x).sum())
        assert meter.saved_bytes == alive > 0
        net = Away(away)
        with ActivationMeter(net, detailed=detailed) as meter:
            loss = net(torch.randn(2, 3, 8, 8)).sum()
        assert meter.saved_bytes == alive
        loss.backward()
    assert torch.autograd.graph.saved_tensors_hooks.__enter__ is before


@pytest.mark.parametrize("compressed", [False, True])
def test_a_convolution_called_three_times_counts_three_inputs(compressed: bool) -> None:
    class Thrice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(4, 4, 3, padding=1)

        def forward(self, x: Tensor) -> Tensor:
            return self.conv(self.conv(self.conv(x)))

    net, x = Thrice(), torch.randn(2, 4, 6, 6)
    if compressed:
        compress_(net, Vanilla())
    for detailed in (True, False, True, False):
        with ActivationMeter(net, detailed=detailed) as meter:
            loss = net(x).sum()
        assert meter.published_bytes == 3 * x.nbytes
        loss.backward()


@pytest.mark.parametrize("detailed", [True, False])
def test_a_backward_inside_the_block_is_refused(detailed: bool) -> None:
    net, x = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()), torch.randn(2, 3, 8, 8)
    with (
        pytest.raises(UnsupportedLayerError, match="close the block before"),
        ActivationMeter(net, detailed=detailed),
    ):
        net(x).sum().backward()
    with ActivationMeter(net, detailed=detailed) as meter:  # a gradient penalty keeps what it used
        (penalty,) = torch.autograd.grad(net(x).sum(), net[0].weight, create_graph=True)
        loss = penalty.square().sum()
    assert meter.saved_bytes >= x.nbytes
    loss.backward()
