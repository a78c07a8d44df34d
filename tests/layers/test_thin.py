"""Gradients handed over in the layer, whole or as thin matrices, against autograd's on the restored input."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from fed_asi.layers.base import LayerState, attach_
from fed_asi.layers.compressed import weight_kind_of
from fed_asi.layers.gradient import Part, WeightGradient
from fed_asi.layers.linear import features_second
from fed_asi.layers.operation import row_dots
from fed_asi.layers.thin import GRAM, ThinGradient, of_pixels
from fed_asi.methods import ASI, GradientFilter, Method, Quantized, Vanilla
from strategies import Case, case_of, convolutions, fill_, linears, methods, modes_of, seeded

pytestmark = [pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths")]
FAST = settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))


class Taken:
    """A sink that takes everything and keeps it."""

    def __init__(self, wants: bool = True) -> None:
        self.wants = wants
        self.seen: list[Tensor] = []
        self.parts: list[Part] = []

    def see(self, parameters: Sequence[Tensor]) -> None:
        self.seen += parameters

    def takes(self, parameters: Sequence[Tensor]) -> bool:
        return self.wants and bool(parameters)

    def take_(self, parts: Sequence[Part]) -> None:
        self.parts += parts

    def holds(self, parameter: Tensor, gradient: WeightGradient) -> bool:
        return False


def layer_of(case: Case, method: Method, sink: Taken) -> nn.Module:
    layer = copy.deepcopy(case.layer)
    channels = case.x.movedim(-1, 1) if isinstance(layer, nn.Linear) else case.x
    mean = channels.transpose(0, 1).flatten(1).mean(1) + 0.25
    attach_(layer, LayerState("layer", method, type(layer), seed=5, mean=mean, sink=sink))
    return layer.train()


def oracle_of(case: Case, method: Method) -> Tensor:
    """Autograd's dW of the plain layer on the input that the form stands for."""
    plain, linear = copy.deepcopy(case.layer), isinstance(case.layer, nn.Linear)
    x = case.x.movedim(-1, 1) if linear else case.x
    mean = x.transpose(0, 1).flatten(1).mean(1) + 0.25
    state = LayerState("layer", method, type(plain), seed=5, mean=mean)
    kept = (method.reordered(features_second) if linear else method).keep(x, state).restore()
    out = plain(kept.movedim(1, -1) if linear else kept)
    return torch.autograd.grad((out * case.g).sum(), plain.weight)[0]


def close(actual: Tensor, expected: Tensor) -> None:
    assert actual.shape == expected.shape
    assert float((actual - expected).detach().abs().max()) <= 1e-10 * max(
        1.0, float(expected.detach().abs().max())
    )


def agrees(gradient: WeightGradient, dw: Tensor, layer: nn.Module) -> None:
    """Everything that may be asked of a gradient is what the whole one gives."""
    target = seeded(*dw.shape, seed=9)
    expected = target + 0.5 * dw
    gradient.add_to_(target, 0.5)
    close(target, expected)
    close(gradient.squared_norm(), dw.square().sum())
    close(torch.cat([part for _, part in gradient.blocks()]), dw)
    assert all(torch.equal(dw[rows], dw[rows][: len(part)]) for rows, part in gradient.blocks())
    close(gradient.whole(), dw)
    if not isinstance(layer, nn.ConvTranspose2d):
        close(gradient.products(layer.weight.detach()), (dw * layer.weight).flatten(1).sum(1).detach())
    scale = seeded(len(dw), seed=11)
    gradient.scale_(scale)
    close(gradient.whole(), dw * scale.view(-1, *[1] * (dw.dim() - 1)))


@given(st.data())
@FAST
def test_what_a_sink_takes_is_the_gradient(data: st.DataObject) -> None:
    case = data.draw(st.one_of(convolutions(), linears()))
    method = data.draw(methods(modes_of(case)))
    sink = Taken()
    layer = layer_of(case, method, sink)
    x = case.x.clone(memory_format=torch.preserve_format).requires_grad_()
    plain_dx = torch.autograd.grad((case.layer(x) * case.g).sum(), x)[0]
    dx = torch.autograd.grad((layer(x) * case.g).sum(), x)[0]
    close(dx, plain_dx)
    taken = {id(parameter): gradient for parameter, gradient in sink.parts}
    assert set(taken) == {id(p) for p in layer.parameters()} == {id(p) for p in sink.seen}
    gradient = taken[id(layer.weight)]
    assert isinstance(gradient, WeightGradient)
    kind = weight_kind_of(layer)
    assert kind is not None
    if kind.thin_gradient(case.layer, method):
        assert isinstance(gradient, ThinGradient)
    agrees(gradient, oracle_of(case, method), layer)


WIDE = [
    (nn.Conv2d(40, 70, 1, stride=2, dtype=torch.float64), seeded(3, 40, 9, 8)),
    (nn.Conv2d(12, 70, 3, padding=1, dtype=torch.float64), seeded(2, 12, 5, 5)),
    (nn.Conv2d(40, 70, 1, dtype=torch.float64), seeded(1, 40, 3, 3).to(memory_format=torch.channels_last)),
    (nn.Linear(50, 70, dtype=torch.float64), seeded(4, 11, 50)),
]


@pytest.mark.few(6)
@pytest.mark.parametrize("method", ["whole", "few ranks", "many ranks"])
@pytest.mark.parametrize("index", range(len(WIDE)))
@pytest.mark.parametrize("last", [True, False])
def test_more_outputs_and_columns_than_one_block(index: int, method: str, last: bool) -> None:
    plain, x = WIDE[index]
    layer = fill_(copy.deepcopy(plain))
    if last and isinstance(layer, nn.Conv2d):
        layer = layer.to(memory_format=torch.channels_last)
    case, channel = case_of(layer, x), -1 if isinstance(layer, nn.Linear) else 1
    ranks = [min(2, d) for d in x.shape]
    ranks[channel] = min(x.shape[channel] - 1, 4 if method == "few ranks" else GRAM + 3)
    if method == "many ranks":
        ranks[0], ranks[2] = x.shape[0], x.shape[2]
    form: Method = Vanilla() if method == "whole" else ASI(tuple(ranks))
    sink = Taken()
    (layer_of(case, form, sink)(case.x) * case.g).sum().backward()
    agrees(_weight(sink), oracle_of(case, form), layer)


def _weight(sink: Taken) -> WeightGradient:
    (found,) = [g for _, g in sink.parts if isinstance(g, WeightGradient)]
    return found


def test_a_gradient_made_of_somebody_elses_tensor_leaves_it_alone() -> None:
    x, g, weight = seeded(2, 3, 4, 4), seeded(2, 5, 4, 4, seed=1), seeded(5, 3, 1, 1, seed=2)
    g = g.to(memory_format=torch.channels_last)
    before, scale = g.clone(), seeded(5, seed=3)
    gradient = of_pixels(x, g, weight, (1, 1), own=False)
    whole = gradient.whole()
    gradient.scale_(scale)
    assert torch.equal(g, before)
    close(gradient.whole(), whole * scale.view(-1, 1, 1, 1))
    of_pixels(x, g, weight, (1, 1), own=True).scale_(scale)
    assert not torch.equal(g, before)


def test_a_sink_that_wants_nothing_leaves_autograd_its_gradients() -> None:
    case = case_of(fill_(nn.Conv2d(3, 4, 1, dtype=torch.float64)), seeded(2, 3, 4, 4))
    sink = Taken(wants=False)
    layer = layer_of(case, Quantized(8), sink)
    (layer(case.x) * case.g).sum().backward()
    assert sink.parts == []
    close(layer.weight.grad, oracle_of(case, Quantized(8)))


def test_a_filtered_gradient_is_no_product_of_thin_matrices() -> None:
    case = case_of(fill_(nn.Conv2d(3, 4, 1, dtype=torch.float64)), seeded(2, 3, 4, 4))
    layer, sink = layer_of(case, GradientFilter(2), Taken()), Taken()
    (layer(case.x) * case.g).sum().backward()
    assert not weight_kind_of(layer).thin_gradient(layer, GradientFilter(2))
    alone = layer_of(case, GradientFilter(2), sink)
    sink.wants = False
    (alone(case.x) * case.g).sum().backward()
    close(_weight(layer._asi.sink).whole(), alone.weight.grad)


def test_products_of_rows_have_the_bits_of_one_product_however_many_are_taken_at_once() -> None:
    generator = torch.Generator().manual_seed(2)
    for shape in ((64, 8, 3, 3), (3, 40_000), (600, 1000)):
        left, right = (torch.randn(shape, generator=generator) for _ in range(2))
        for at_once in (False, True):
            found = row_dots(left, right, at_once=at_once)
            assert torch.equal(found, (left * right).flatten(1).sum(1))
