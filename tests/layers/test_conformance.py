"""Every layer with a weight, under every method, in every geometry: its gradients are what they claim to be.

The oracle is autograd through the plain layer on the reconstructed input: dW must equal its weight gradient, and dX and
the output must equal the plain layer's own.
"""

from __future__ import annotations

import copy
from dataclasses import replace
from fractions import Fraction

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from fed_asi import layers
from fed_asi.layers.base import LayerState, attach_, commit_factors_, detach_, kind_of, state_of
from fed_asi.layers.linear import features_second
from fed_asi.memory.meter import ActivationMeter
from fed_asi.methods import (
    ASI,
    HOSVD,
    BiasOnly,
    FixedSubspace,
    Frozen,
    Method,
    Quantized,
    SpatialMean,
    Vanilla,
)
from strategies import Case, asi, case_of, convolutions, fill_, linears, methods, modes_of, seeded

pytestmark = [  # torch's own remarks on the plain layers
    pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths"),
]
FAST = settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
MANY = settings(max_examples=600, deadline=None, suppress_health_check=list(HealthCheck))


def mean_of(case: Case) -> Tensor:
    channels = case.x.movedim(-1, 1) if isinstance(case.layer, nn.Linear) else case.x
    return channels.transpose(0, 1).flatten(1).mean(1) + 0.25


def compressed(case: Case, method: Method, **changes: object) -> nn.Module:
    layer = copy.deepcopy(case.layer)
    state = LayerState("layer", method, type(layer), seed=5, mean=mean_of(case))
    attach_(layer, replace(state, **changes))
    return layer.train()


def restored(case: Case, method: Method) -> Tensor:
    """The input that the method's form stands for, less the mean where it is centred."""
    state = LayerState("layer", method, type(case.layer), seed=5, mean=mean_of(case))
    if isinstance(case.layer, nn.Linear):
        return method.reordered(features_second).keep(case.x.movedim(-1, 1), state).restore().movedim(1, -1)
    return method.keep(case.x, state).restore()


def gradients(layer: nn.Module, x: Tensor, g: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """(dX, gradients of the parameters) of <layer(x), g>."""
    x = x.clone(memory_format=torch.preserve_format).requires_grad_()
    named = dict(layer.named_parameters())
    found = torch.autograd.grad((layer(x) * g).sum(), [x, *named.values()])
    return found[0], dict(zip(named, found[1:], strict=True))


def close(actual: Tensor, expected: Tensor, tolerance: float = 1e-10) -> None:
    assert actual.shape == expected.shape
    bound = tolerance * max(1.0, float(expected.detach().abs().max()))
    assert float((actual - expected).detach().abs().max()) <= bound


def ones_response(case: Case, dw: Tensor) -> Tensor:
    """What dW gives for an input that is the mean everywhere, summed over taps: the part left to the bias."""
    mean = mean_of(case)
    if isinstance(case.layer, nn.Linear):
        return dw @ mean
    groups = case.layer.groups
    if isinstance(case.layer, nn.ConvTranspose2d):  # its weight is (C, C' / groups, *kernel)
        taps = dw.flatten(2).sum(2).view(groups, dw.shape[0] // groups, -1)
        return (taps * mean.view(groups, -1, 1)).sum(1).flatten()
    per_group = mean.view(groups, 1, -1).expand(groups, dw.shape[0] // groups, -1).flatten(0, 1)
    return (dw.flatten(2).sum(2) * per_group).sum(1)


def conforms(case: Case, method: Method) -> None:
    layer = compressed(case, method)
    plain_dx, plain = gradients(case.layer, case.x, case.g)
    _, oracle = gradients(case.layer, restored(case, method), case.g)
    close(layer(case.x.clone().requires_grad_()), case.layer(case.x))
    dx, found = gradients(compressed(case, method), case.x, case.g)
    close(dx, plain_dx)
    close(found["weight"], oracle["weight"])
    if "bias" in found:
        centered = getattr(method, "centered", False)
        left = ones_response(case, oracle["weight"]) if centered else torch.zeros(())
        close(found["bias"], plain["bias"] - left)


@given(st.data())
@FAST
def test_convolutions(data: st.DataObject) -> None:
    case = data.draw(convolutions())
    conforms(case, data.draw(methods(modes_of(case))))


@given(st.data())
@FAST
def test_linears(data: st.DataObject) -> None:
    case = data.draw(linears())
    conforms(case, data.draw(methods(modes_of(case))))


@pytest.mark.slow
@pytest.mark.computes
@given(st.data())
@MANY
def test_many_more_cases(data: st.DataObject) -> None:
    case = data.draw(st.one_of(convolutions(), convolutions(), linears()))
    conforms(case, data.draw(methods(modes_of(case))))


OTHERS = [
    nn.Conv1d(4, 6, 3, stride=2, padding=1, groups=2, dtype=torch.float64),
    nn.Conv1d(3, 4, 4, padding="same", dtype=torch.float64),
    nn.Conv3d(2, 3, (1, 2, 3), stride=(1, 2, 1), padding=1, dtype=torch.float64),
    nn.Conv3d(2, 4, 3, groups=2, padding=1, padding_mode="circular", dtype=torch.float64),
    nn.ConvTranspose2d(4, 6, 3, stride=2, padding=1, output_padding=1, dtype=torch.float64),
    nn.ConvTranspose2d(4, 6, (2, 3), stride=(1, 2), dilation=2, groups=2, dtype=torch.float64),
]


@pytest.mark.few(10)
@pytest.mark.parametrize("layer", OTHERS, ids=str)
@pytest.mark.parametrize("method", ["asi", "published", "int8", "hosvd", "fixed", "low-bits", "vanilla"])
def test_other_dimensions(layer: nn.Module, method: str) -> None:
    spatial = {nn.Conv1d: (7,), nn.Conv3d: (3, 4, 3), nn.ConvTranspose2d: (4, 5)}[type(layer)]
    case = case_of(fill_(copy.deepcopy(layer)), seeded(3, layer.in_channels, *spatial))
    ranks = tuple(max(1, d - 1) for d in case.x.shape)
    known = {
        "asi": ASI(ranks),
        "published": ASI(ranks, order="published"),
        "int8": ASI(ranks, bits=8, centered=True),
        "hosvd": HOSVD(0.7),
        "fixed": FixedSubspace(0.7, centered=True),
        "low-bits": Quantized(4),
        "vanilla": Vanilla(centered=True),
    }
    conforms(case, known[method])


@given(st.data())
@settings(FAST, max_examples=40)
def test_full_ranks_are_exact(data: st.DataObject) -> None:
    case = data.draw(st.one_of(convolutions(), linears()))
    method = ASI(modes_of(case), order=data.draw(st.sampled_from(["sequential", "published"])))
    dx, found = gradients(compressed(case, method), case.x, case.g)
    plain_dx, plain = gradients(case.layer, case.x, case.g)
    close(dx, plain_dx)
    for name, value in plain.items():
        close(found[name], value)


@given(st.data())
@settings(FAST, max_examples=15)
def test_gradcheck(data: st.DataObject) -> None:
    """Numerical derivatives: of dX at any rank, of dW too at full rank."""
    case = data.draw(convolutions())
    if case.x.numel() > 300:
        case = case_of(case.layer, case.x[:1].contiguous())
    low = compressed(case, data.draw(asi(modes_of(case))))
    low.requires_grad_(False)
    x = case.x.clone().requires_grad_()
    assert torch.autograd.gradcheck(low, (x,), fast_mode=True)
    full = compressed(case, ASI(modes_of(case)))

    def of_weight(weight: Tensor) -> Tensor:
        return torch.func.functional_call(full, {"weight": weight}, (case.x,))

    assert torch.autograd.gradcheck(
        of_weight, (case.layer.weight.detach().clone().requires_grad_(),), fast_mode=True
    )


@given(st.data())
@settings(FAST, max_examples=60)
def test_promised_bytes_are_measured_bytes(data: st.DataObject) -> None:
    case = data.draw(st.one_of(convolutions(), linears()))
    method = data.draw(methods(modes_of(case)).filter(lambda m: not isinstance(m, (HOSVD, FixedSubspace))))
    layer = compressed(case, method)
    kind = kind_of(layer)
    assert kind is not None
    for _ in range(2):  # a warm start remembers from the second step on
        x = case.x.clone()
        with ActivationMeter(layer) as meter:
            y = layer(x)
        commit_factors_(layer)
    assert y.grad_fn is not None
    assert meter.saved_bytes == kind.saved_bytes(case.layer, method, case.x.shape, torch.float64)


@given(st.data())
@settings(FAST, max_examples=40)
def test_side_by_side_is_one_after_another(data: st.DataObject) -> None:
    case = data.draw(st.one_of(convolutions(), linears()))
    size = data.draw(st.integers(1, case.x.shape[0]))
    method = data.draw(
        st.one_of(methods((size, *case.x.shape[1:]))).filter(lambda m: not isinstance(m, FixedSubspace))
    )
    together = gradients(compressed(case, method, micro_batch=size), case.x, case.g)[1]
    alone = compressed(case, method, micro_batch=size)
    total = {name: torch.zeros_like(value) for name, value in together.items()}
    for first in range(0, case.x.shape[0], size):
        part = slice(first, first + size)
        for name, value in gradients(alone, case.x[part], case.g[part])[1].items():
            total[name] += value
    for name, value in together.items():
        close(value, total[name])


@pytest.mark.parametrize("trained", ["weight", "bias", "both", "none"])
@pytest.mark.parametrize("input_gradient", [True, False])
@pytest.mark.parametrize("method", [ASI((2, 2, 3, 3)), Vanilla(), Quantized(8)], ids=str)
def test_only_what_is_asked_is_computed(trained: str, input_gradient: bool, method: Method) -> None:
    case = case_of(fill_(nn.Conv2d(3, 4, 3, dtype=torch.float64)), seeded(4, 3, 6, 6))
    layer = compressed(case, method)
    layer.weight.requires_grad_(trained in {"weight", "both"})
    layer.bias.requires_grad_(trained in {"bias", "both"})
    x = case.x.clone().requires_grad_(input_gradient)
    y = layer(x)
    assert y.requires_grad is (input_gradient or trained != "none")
    if y.requires_grad:
        (y * case.g).sum().backward()
    assert (x.grad is not None) is input_gradient
    assert (layer.weight.grad is not None) is (trained in {"weight", "both"})
    assert (layer.bias.grad is not None) is (trained in {"bias", "both"})


@pytest.mark.parametrize("method", [Frozen(), BiasOnly()], ids=str)
def test_methods_that_keep_nothing_keep_nothing(method: Method) -> None:
    case = case_of(fill_(nn.Conv2d(3, 4, 3, dtype=torch.float64)), seeded(4, 3, 6, 6))
    layer = compressed(case, method)
    layer.weight.requires_grad_(False)
    layer.bias.requires_grad_(isinstance(method, BiasOnly))
    with ActivationMeter(layer) as meter:
        y = layer(case.x.clone().requires_grad_())
    assert meter.saved_bytes == 0
    (y * case.g).sum().backward()
    if layer.bias.requires_grad:
        close(layer.bias.grad, case.g.sum((0, 2, 3)))


def test_a_layer_used_twice() -> None:
    case = case_of(fill_(nn.Conv2d(3, 3, 3, padding=1, dtype=torch.float64)), seeded(4, 3, 6, 6))
    layer, plain = compressed(case, Vanilla()), case.layer
    ours, theirs = (torch.autograd.grad((m(m(case.x)) * case.g).sum(), m.weight)[0] for m in (layer, plain))
    close(ours, theirs)
    full = compressed(case, ASI((4, 3, 6, 6)))
    close(torch.autograd.grad((full(full(case.x)) * case.g).sum(), full.weight)[0], theirs)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    "method", [ASI((2, 2, 3, 3)), ASI((4, 3, 6, 6)), HOSVD(0.9), Quantized(8), Vanilla()], ids=str
)
def test_smaller_dtypes(dtype: torch.dtype, method: Method) -> None:
    exact = case_of(fill_(nn.Conv2d(3, 4, 3, dtype=torch.float64)), seeded(4, 3, 6, 6))
    case = case_of(copy.deepcopy(exact.layer).to(dtype), exact.x.to(dtype))
    dx, found = gradients(compressed(case, method), case.x, case.g.to(dtype))
    plain_dx, _ = gradients(exact.layer, case.x.double(), case.g.to(dtype).double())
    _, oracle = gradients(exact.layer, restored(exact, method), case.g.to(dtype).double())
    tolerance = 1e-4 if dtype is torch.float32 else 0.05
    assert dx.dtype == found["weight"].dtype == dtype
    close(dx.double(), plain_dx, tolerance)
    close(found["weight"].double(), oracle["weight"], tolerance)


def test_a_single_sample_without_batch() -> None:
    layer = fill_(nn.Conv2d(3, 4, 3, dtype=torch.float64))
    case = case_of(layer, seeded(3, 6, 6))
    ours = compressed(case, Vanilla())
    for a, b in zip(
        gradients(ours, case.x, case.g)[1].values(), gradients(layer, case.x, case.g)[1].values(), strict=True
    ):
        close(a, b)


@pytest.mark.parametrize("kind", ["eval", "no_grad", "inference"])
def test_inference_keeps_and_changes_nothing(kind: str) -> None:
    case = case_of(fill_(nn.Conv2d(3, 4, 3, dtype=torch.float64)), seeded(4, 3, 6, 6))
    layer = compressed(case, ASI((2, 2, 3, 3)))
    layer(case.x)
    commit_factors_(layer)
    before = layers.factors(layer)
    if kind == "eval":
        layer.eval()
    with torch.inference_mode() if kind == "inference" else torch.no_grad():
        close(layer(case.x), case.layer(case.x))
    state = state_of(layer)
    assert state is not None
    assert state.pending is None
    after = layers.factors(layer)
    assert all(
        torch.equal(a, b)
        for a, b in zip(
            before["layer" if "layer" in before else ""],
            after["layer" if "layer" in after else ""],
            strict=True,
        )
    )


def test_spatial_mean_is_exact_before_a_global_pool() -> None:
    conv = fill_(nn.Conv2d(5, 4, 1, dtype=torch.float64))
    case = case_of(conv, seeded(3, 5, 4, 6))
    layer = compressed(case, SpatialMean(), pooled=True)
    pool = nn.AdaptiveAvgPool2d(1)
    g = seeded(3, 4, 1, 1)
    for model, other in ((layer, conv),):
        ours = gradients(nn.Sequential(model, pool), case.x, g)
        theirs = gradients(nn.Sequential(other, pool), case.x, g)
        close(ours[0], theirs[0])
        for a, b in zip(ours[1].values(), theirs[1].values(), strict=True):
            close(a, b)
    with ActivationMeter(layer) as meter:
        y = layer(case.x.clone())
    assert y.grad_fn is not None
    assert meter.saved_bytes == 3 * 5 * 8


def test_micro_batches_count_fractions() -> None:
    case = case_of(fill_(nn.Conv2d(3, 4, 3, dtype=torch.float64)), seeded(6, 3, 6, 6))
    layer = compressed(case, ASI((2, 2, 3, 3), warm=False), micro_batch=2)
    with ActivationMeter(layer, micro_batches=Fraction(6, 2)) as meter:
        y = layer(case.x.clone())
    assert y.grad_fn is not None
    kind = kind_of(layer)
    assert kind is not None
    assert meter.per_micro_batch_bytes == kind.saved_bytes(
        case.layer, ASI((2, 2, 3, 3), warm=False), (2, 3, 6, 6), torch.float64
    )


def test_detached_is_the_plain_layer_again() -> None:
    case = case_of(fill_(nn.Conv2d(3, 4, 3, dtype=torch.float64)), seeded(4, 3, 6, 6))
    layer = compressed(case, ASI((2, 2, 3, 3)))
    detach_(layer)
    assert type(layer) is nn.Conv2d
    assert "_asi" not in vars(layer)
