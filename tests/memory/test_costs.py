"""Costs: the poster's vanilla figures to the digit, true MACs by hand, and bytes as the layers keep them."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from fed_asi import models
from fed_asi.compression.compress import compress_
from fed_asi.compression.tune import tune_last_
from fed_asi.memory.costs import Cost, cost
from fed_asi.memory.meter import ActivationMeter
from fed_asi.methods import ASI, HOSVD, BiasOnly, Frozen, GradientFilter, Method, Quantized, Vanilla
from fed_asi.methods.sizes import LayerSize

DENSE = LayerSize((2, 3, 8, 8), (2, 5, 4, 4), (3, 3))
DEPTHWISE = LayerSize((2, 6, 8, 8), (2, 6, 8, 8), (3, 3), groups=6)
POINTWISE = LayerSize((4, 6, 5, 5), (4, 7, 5, 5), (1, 1))


def test_exact_macs_by_hand() -> None:
    assert DENSE.forward_macs == 9 * 3 * 5 * 4 * 4 * 2
    assert DEPTHWISE.forward_macs == 9 * 6 * 8 * 8 * 2
    assert Vanilla().dw_macs(DENSE) == DENSE.forward_macs
    assert Frozen().dw_macs(DENSE) == BiasOnly().dw_macs(DENSE) == 0
    assert Vanilla().overhead_macs(DENSE) == 0


def test_the_published_convention_by_hand() -> None:
    assert Vanilla().published_flops(DENSE) == 9 * 3 * 5 * 2 * (8 * 8 + 4 * 4)
    assert Vanilla().published_flops(DEPTHWISE) == 9 * 6 * 6 * 2 * (64 + 64)  # groups are ignored
    assert Vanilla().published_bytes(DENSE) == 4 * 2 * 3 * 8 * 8
    assert GradientFilter(2).published_bytes(DENSE) == 4 * 2 * 3 * 2 * 2  # patches of the output's grid
    assert Frozen().published_bytes(DENSE) == 0


def test_published_asi_by_hand() -> None:
    ranks, numel = (2, 3, 4, 2), 4 * 6 * 5 * 5
    overhead = sum(2 * numel * r + r**3 for r in ranks)
    dw = 2 * 7 * 25 * 4 + 5 * 2 * 3 * 4 * 2 + 25 * 2 * 3 * 2 + 7 * 2 * 3 * 25 + 7 * 6 * 3
    assert ASI(ranks).published_flops(POINTWISE, ranks) == 6 * 7 * 25 * 4 + overhead + dw
    assert ASI(ranks).published_bytes(POINTWISE, ranks) == 4 * (48 + 4 * 2 + 6 * 3 + 5 * 4 + 5 * 2)


def test_a_rank_above_its_mode_counts_as_the_mode() -> None:
    above, at = (99, 2, 2, 2), (4, 2, 2, 2)
    assert ASI(above).published_bytes(POINTWISE, above) == ASI(at).published_bytes(POINTWISE, at)


def test_full_ranks_cost_no_compression_and_the_exact_gradient() -> None:
    for size in (DENSE, DEPTHWISE, POINTWISE):
        method = ASI(size.dims)
        assert method.overhead_macs(size, size.dims) == 0
        assert method.dw_macs(size, size.dims) == size.forward_macs


# (network, trained convolutions): MB and GFLOPs as the poster prints them, GMACs counted right
POSTER = {
    ("mobilenet_v2", 2): ("15.31", "4.50", "4.496"),
    ("mobilenet_v2", 4): ("28.71", "57.48", "5.513"),
    ("resnet18", 2): ("12.25", "29.60", None),
    ("resnet18", 4): ("30.62", "46.45", None),
    ("mcunet", 2): ("13.78", "19.31", "0.611"),
    ("mcunet", 4): ("19.52", "19.88", "1.189"),
}


@pytest.mark.few(2)
@pytest.mark.parametrize(("name", "layers"), POSTER)
def test_the_posters_vanilla_figures(name: str, layers: int) -> None:
    model = models.build(name, 1000)
    tune_last_(model, layers)
    found = cost(model, torch.zeros(1, 3, 224, 224))
    mib, gflops, gmacs = POSTER[name, layers]
    trained = [layer for layer in found.layers if layer.published_bytes]
    assert len(trained) == layers
    assert f"{64 * found.published_bytes / 2**20:.2f}" == mib
    assert f"{64 * found.published_flops / 1e9:.2f}" == gflops
    if gmacs is not None:
        counted = 64 * sum(layer.forward_macs + layer.dw_macs for layer in trained) / 1e9
        assert f"{counted:.3f}" == gmacs


def tiny() -> tuple[nn.Module, torch.Tensor]:
    model = models.build("tiny", 10)
    tune_last_(model, 3)
    return model, torch.randn(8, 3, 32, 32, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    "method",
    [Vanilla(), Quantized(8), ASI((4, 4, 2, 2)), ASI((4, 4, 2, 2), order="published"), HOSVD(0.8)],
    ids=str,
)
def test_saved_bytes_are_the_meters_and_hold_the_published_ones(method: Method) -> None:
    model, x = tiny()
    compress_(model, method)
    found = cost(model, x)
    kept = [layer.published_bytes for layer in found.layers if layer.published_bytes]
    assert len(kept) == 3
    with ActivationMeter(model) as meter:
        loss = nn.functional.cross_entropy(model.train()(x), torch.zeros(8, dtype=torch.long))
    del loss
    assert found.saved_bytes == meter.saved_bytes
    assert sum(kept) <= found.saved_bytes


def test_the_first_trained_layer_and_the_trunk_need_no_dx() -> None:
    model, x = tiny()
    layers = cost(model, x).layers
    first = next(i for i, layer in enumerate(layers) if layer.method == Vanilla())
    assert all(layer.dx_macs == 0 for layer in layers[: first + 1])
    assert all(layer.dx_macs == layer.forward_macs for layer in layers[first + 1 :])


def test_totals_are_sums_and_the_step_counts_the_trunk() -> None:
    found = cost(*tiny())
    assert found.macs == sum(layer.macs for layer in found.layers if layer.method == Vanilla())
    assert found.step_macs > found.macs > 0
    assert found.uncounted == ()
    assert "GMAC" in str(found)


def test_micro_batches_side_by_side_are_counted_each_by_itself() -> None:
    model, x = tiny()
    compress_(model, ASI((2, 4, 2, 2)))
    one = cost(model, x[:2])
    compress_(model, ASI((2, 4, 2, 2)), micro_batch=2)
    four = cost(model, x)
    assert four.published_bytes == 4 * one.published_bytes
    assert four.macs == 4 * one.macs


def test_the_model_and_the_random_state_are_only_read() -> None:
    model, x = tiny()
    compress_(model, ASI((4, 4, 2, 2)))
    model.eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state = torch.get_rng_state()
    first, second = cost(model, x), cost(model, x)
    assert first == second
    assert torch.equal(torch.get_rng_state(), state)
    assert not any(module.training for module in model.modules())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())


def test_layers_it_cannot_count_are_named() -> None:
    class Attention(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.mix = nn.MultiheadAttention(4, 2, batch_first=True)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.mix(x, x, x)[0]

    found: Cost = cost(Attention(), torch.zeros(2, 3, 4))
    assert "mix" in found.uncounted


def test_linear_layers_have_macs_but_no_published_figures() -> None:
    found = cost(nn.Sequential(nn.Linear(6, 7)), torch.zeros(4, 5, 6))
    assert found.layers[0].forward_macs == found.layers[0].dw_macs == 4 * 5 * 6 * 7
    assert found.published_bytes == found.published_flops == 0


@pytest.mark.parametrize(
    ("name", "size", "mmacs", "parameters"),
    [
        ("mcunet-in0", 48, "6.4", "0.7"),
        ("mcunet-in1", 96, "12.8", "0.6"),
        ("mcunet-in2", 160, "67.3", "0.7"),
        ("mcunet-in3", 176, "81.8", "0.7"),
        ("mcunet-in4", 160, "125.9", "1.7"),
    ],
)
def test_the_mcunets_have_their_published_macs(name: str, size: int, mmacs: str, parameters: str) -> None:
    model = models.build(name, 1000)
    found = cost(model, torch.zeros(1, 3, size, size))
    assert f"{sum(layer.forward_macs for layer in found.layers) / 1e6:.1f}" == mmacs
    assert f"{sum(p.numel() for p in model.parameters()) / 1e6:.1f}" == parameters
