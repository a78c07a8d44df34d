"""compress_: exact gradients equal torch's, bytes are those predicted, and everything can be undone."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fed_asi import layers, models
from fed_asi.compression.compress import check_gradients, compress_, uncompress_
from fed_asi.compression.tune import tune_last_
from fed_asi.errors import ConfigError, UnsupportedLayerError
from fed_asi.memory.meter import ActivationMeter
from fed_asi.methods import (
    ASI,
    HOSVD,
    BiasOnly,
    Frozen,
    GradientFilter,
    Method,
    Quantized,
    SpatialMean,
    Vanilla,
)


class Small(nn.Module):
    """Every case of a pair: fused, residual, shared activation, pooled; two kinds of pooling; a head."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU6(inplace=True))
        self.pool = nn.MaxPool2d(2)
        self.depth = nn.Conv2d(6, 6, 3, padding=1, groups=6, bias=False)
        self.depth_norm, self.relu = nn.BatchNorm2d(6), nn.ReLU(inplace=True)
        self.again, self.again_norm = nn.Conv2d(6, 6, 1), nn.BatchNorm2d(6)
        self.last, self.last_norm = nn.Conv2d(6, 8, 1, bias=False), nn.BatchNorm2d(8)
        self.mean, self.flat = nn.AdaptiveAvgPool2d(1), nn.Flatten()
        self.head = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(self.stem(x))
        x = x + self.relu(self.depth_norm(self.depth(x)))
        x = self.relu(self.again_norm(self.again(x)))
        scores: Tensor = self.head(self.flat(self.mean(self.last_norm(self.last(x)))))
        return scores


def small() -> nn.Module:
    torch.manual_seed(0)
    model = Small().double()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.weight, module.bias, module.running_mean, module.running_var):
                tensor.data.copy_(torch.rand_like(tensor) + 0.5)
    return model


def step(model: nn.Module, x: Tensor) -> tuple[Tensor, dict[str, Tensor], ActivationMeter]:
    model.zero_grad()
    with ActivationMeter(model) as meter:
        loss = F.cross_entropy(model(x), torch.arange(len(x)) % 5)
    loss.backward()
    grads = {n: p.grad for n, p in model.named_parameters() if p.requires_grad and p.grad is not None}
    layers.commit_factors_(model)
    return loss.detach(), grads, meter


def batch(n: int = 6, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(n, 3, 10, 10, dtype=dtype, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("n", [0, 1, 2, 3, 4])
def test_vanilla_is_plain_training_in_fewer_bytes(n: int) -> None:
    plain = small().eval()
    tune_last_(plain, n)
    loss, grads, meter = step(plain, batch())
    ours = copy.deepcopy(plain).train()
    names = [name for name, p in ours.named_parameters() if p.requires_grad]
    report = compress_(ours, Vanilla() if n else {"head": Vanilla()})
    found_loss, found, found_meter = step(ours, batch())
    assert torch.allclose(loss, found_loss, rtol=1e-12)
    assert report.trained == tuple(names) == tuple(found)
    assert all(torch.allclose(found[name], grads[name], rtol=1e-9, atol=1e-12) for name in grads)
    assert found_meter.published_bytes == meter.published_bytes
    assert found_meter.saved_bytes < meter.saved_bytes or n <= 1
    check_gradients(ours)


@pytest.mark.parametrize("n", [1, 4])
def test_a_tucker_form_of_full_rank_is_exact_through_the_whole_network(n: int) -> None:
    plain = small().eval()
    tune_last_(plain, n)
    _, grads, _ = step(plain, batch())
    compress_(plain.train(), HOSVD(epsilon=1.0))
    _, found, _ = step(plain, batch())
    assert all(torch.allclose(found[name], grads[name], rtol=1e-8, atol=1e-10) for name in grads)


METHODS: list[Method] = [
    Vanilla(),
    Quantized(8),
    Quantized(4),
    ASI((3, 2, 2, 2)),
    ASI((3, 2, 2, 2), warm=False),
    ASI((2, 3, 1, 3), order="published"),
    ASI((3, 2, 2, 2), bits=8),
    GradientFilter(2),
    BiasOnly(),
]


def predicted(model: nn.Module, x: Tensor) -> int:
    """Add up saved_bytes of every compressed layer, with input shapes from a plain forward."""
    shapes: dict[str, torch.Size] = {}
    calls: list[tuple[str, torch.Size]] = []
    handles = [
        module.register_forward_pre_hook(lambda _m, args, name=name: calls.append((name, args[0].shape)))
        for name, module, _ in layers.compressed_layers(model)
    ]
    with torch.no_grad():
        model(x)
    for handle in handles:
        handle.remove()
    absorbed = {id(member) for _, _, state in layers.compressed_layers(model) for member in state.fused}
    total = 0
    for name, shape in calls:
        module = model.get_submodule(name)
        state, kind = layers.state_of(module), layers.kind_of(module)
        assert state is not None
        assert kind is not None
        shapes[name] = shape
        if id(module) not in absorbed:
            extra = {"pooled": True} if state.pooled else {}
            total += kind.saved_bytes(module, state.method, shape, x.dtype, state.fused, **extra)
    return total


@pytest.mark.few(8)
@pytest.mark.parametrize("batch_size", [1, 5])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("method", METHODS, ids=str)
def test_the_meter_finds_what_the_layers_promised(
    method: Method, dtype: torch.dtype, batch_size: int
) -> None:
    model = small().to(dtype).train()
    x = batch(batch_size, dtype).requires_grad_()  # from the first layer on, everything counts
    compress_(model, method)
    step(model, x)
    _, _, meter = step(model, x)  # from the second step on there are warm factors
    loss = meter.by_layer["(loss)"]
    assert loss == batch_size * (5 * dtype.itemsize + 8) + dtype.itemsize
    assert meter.saved_bytes - loss == predicted(model, x)


def test_a_plan_trains_what_it_names_and_undoing_gives_everything_back() -> None:
    model = small()
    tune_last_(model, 1)
    before = {name: (type(m), m) for name, m in model.named_modules()}
    flags = {name: p.requires_grad for name, p in model.named_parameters()}
    keys, identities = list(model.state_dict()), [id(p) for p in model.parameters()]
    report = compress_(model, {"depth": ASI((2, 2, 2, 2)), "again": BiasOnly(), "head": Vanilla()}, seed=3)
    assert report.trained == (
        "depth.weight", "depth_norm.weight", "depth_norm.bias", "again.bias", "again_norm.bias",
        "head.weight", "head.bias",
    )  # fmt: skip
    assert report["depth_norm"].action == "fused"
    assert report["last"].method == "frozen"
    assert report["pool"].reason == "before the first trained layer, so it keeps nothing"
    assert "depth_norm" in str(report)
    assert list(model.state_dict()) == keys
    assert [id(p) for p in model.parameters()] == identities
    _, grads, meter = step(model, batch())
    assert tuple(grads) == report.trained
    assert not {"stem.0", "stem.2", "pool"} & set(meter.by_layer)
    uncompress_(model)
    assert {name: (type(m), m) for name, m in model.named_modules()} == before
    assert {name: p.requires_grad for name, p in model.named_parameters()} == flags
    assert not any("_asi" in key for m in model.modules() for key in m.__dict__)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_copies_stay_compressed_and_fused_with_their_own_modules(
    copied: Callable[[nn.Module], nn.Module],
) -> None:
    model = small().train()
    compress_(model, ASI((2, 2, 2, 2)))
    twin = copied(model)
    assert layers.state_of(twin.depth).fused[0] is twin.depth_norm
    for module in (model, twin):
        module.zero_grad()
    ours, theirs = step(model, batch()), step(twin, batch())
    assert torch.equal(ours[0], theirs[0])
    assert all(torch.equal(theirs[1][name], grad) for name, grad in ours[1].items())
    assert ours[2].saved_bytes == theirs[2].saved_bytes


def test_inference_is_the_plain_network_in_both_modes() -> None:
    model = small().eval()
    x = batch()
    expected = model(x)
    compress_(model, Quantized(4))
    with torch.no_grad():
        assert torch.allclose(model(x), expected, rtol=1e-12)
        assert torch.allclose(model.train()(x), expected, rtol=1e-12)
    assert int(model.depth_norm.num_batches_tracked) == 0


def test_a_plan_like_object_brings_its_micro_batch_and_means() -> None:
    plan = SimpleNamespace(
        methods={"again": Vanilla(centered=True), "head": Vanilla()},
        micro_batch=2,
        means={"again": tuple(0.1 * i for i in range(6))},
        bases={},
    )
    model = small().train()
    report = compress_(model, plan)
    state = layers.state_of(model.again)
    assert state is not None
    assert (report.micro_batch, state.micro_batch) == (2, 2)
    assert torch.allclose(state.mean, 0.1 * torch.arange(6, dtype=torch.float64))
    with pytest.raises(ConfigError, match=r"again: .* no mean was given"):
        compress_(model, {"again": Vanilla(centered=True)})


def test_side_by_side_the_bytes_of_a_micro_batch_are_those_of_one_alone() -> None:
    model = small().train()
    sizes = []
    for samples in (2, 6):
        compress_(model, ASI((2, 2, 2, 2)), micro_batch=2)
        meter = ActivationMeter(model, micro_batches=samples // 2)
        for _ in range(2):
            with meter:
                loss = F.cross_entropy(model(batch(samples)), torch.arange(samples) % 5)
            loss.backward()
            layers.commit_factors_(model)
        sizes.append(meter.per_micro_batch_bytes)
    assert abs(sizes[0] - sizes[1]) <= 12  # bits are rounded up to bytes, and the loss's one scalar is shared


WRONG: list[tuple[object, type[Exception], str]] = [
    ({"head": ASI((2, 99))}, UnsupportedLayerError, "head: rank 99"),
    (
        {"depth": SpatialMean(), "head": Vanilla()},
        UnsupportedLayerError,
        "depth: its output does not only feed",
    ),
    ({"nothing": Vanilla()}, ConfigError, "no layer 'nothing'"),
    ({"relu": Vanilla()}, ConfigError, "relu: ReLU has no weight"),
    ({"head": Frozen()}, ConfigError, "trains no layer"),
    (ASI((2, 2)), UnsupportedLayerError, "names none of the trained layers;  stem.0: 2 ranks"),
]


@pytest.mark.parametrize(("spec", "error", "text"), WRONG, ids=[text for *_, text in WRONG])
def test_what_cannot_be_done_is_named_and_changes_nothing(
    spec: object, error: type[Exception], text: str
) -> None:
    model = small()
    before = {name: type(m) for name, m in model.named_modules()}
    with pytest.raises(error, match=text):
        compress_(model, spec)  # type: ignore[arg-type]
    assert {name: type(m) for name, m in model.named_modules()} == before
    assert all(p.requires_grad for p in model.parameters())


def test_a_module_called_before_and_behind_the_first_trained_layer_is_compressed() -> None:
    model = small().train()
    tune_last_(model, 2)
    report = compress_(model, Quantized(8))
    assert report["relu"].action == "compressed"
    x = batch(2)
    assert step(model, x)[2].by_layer["relu"] == -(-2 * 6 * 5 * 5 // 8)


def test_nothing_trained_is_an_error_and_so_is_a_layer_without_a_gradient() -> None:
    model = small().requires_grad_(False)
    with pytest.raises(ConfigError, match="tune_last_"):
        compress_(model, Vanilla())
    model = nn.Sequential(nn.Conv2d(3, 5, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    model.unused = nn.Identity()
    model.unused.weight = nn.Parameter(torch.zeros(1))
    compress_(model.train(), Vanilla())
    step(model, batch(dtype=torch.float32))
    with pytest.raises(UnsupportedLayerError, match=r"without a gradient: unused\.weight"):
        check_gradients(model)


def test_smooth_activations_are_approximate_only_when_asked() -> None:
    model = nn.Sequential(nn.Conv2d(3, 5, 1), nn.SiLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()).train()
    exact = compress_(model, Vanilla())
    assert exact["1"].action == "left"
    assert "keeps its input" in exact["1"].reason
    rough = compress_(model, Vanilla(), smooth_bits=8)
    assert rough["1"].reason == "approximate: slope off by at most 0.0024"


def test_a_graph_module_tail_compresses_as_the_model_does() -> None:
    model = small().train()
    tail = torch.fx.symbolic_trace(model)
    sizes = []
    for module in (model, tail):
        compress_(module, {"last": Quantized(8), "head": Vanilla()})
        sizes.append(step(module, batch())[2].saved_bytes)
        uncompress_(module)
    assert sizes[0] == sizes[1]


def test_mcunet_keeps_a_bit_for_each_relu6_and_no_norm_input() -> None:
    model = models.build("mcunet", 10).train()
    tune_last_(model, 4)
    report = compress_(model, BiasOnly())
    assert [line.name for line in report.of("fused")] == [
        f"blocks.13.{part}"
        for part in (
            "inverted_bottleneck.bn",
            "inverted_bottleneck.act",
            "depth_conv.bn",
            "depth_conv.act",
            "point_linear.bn",
        )
    ]
    x = torch.randn(2, 3, 64, 64)
    with ActivationMeter(model) as meter:
        loss = F.cross_entropy(model(x), torch.tensor([0, 1]))
    assert loss.requires_grad
    masks, features, loss_bytes = 2 * (2 * 576 * 2 * 2) // 8, 2 * 160 * 4, 2 * (10 * 4 + 8) + 4
    assert meter.by_kind == {"Conv2d": masks, "Linear": features, "(loss)": loss_bytes}
