"""Calibration: gradients against autograd, errors against the compressed model, what is refused."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import prune

from fed_asi import models
from fed_asi.compression.compress import compress_
from fed_asi.compression.graph import analyse
from fed_asi.errors import ConfigError, ProfileError, UnsupportedLayerError
from fed_asi.methods import ASI, Quantized, SpatialMean, Vanilla
from fed_asi.methods.ranks import PUBLISHED_EPSILONS, proposed_ranks, published_ranks, spectra
from fed_asi.planning.calibration import profile
from fed_asi.planning.profile import Candidate, Profile
from fed_asi.planning.recording import record
from fed_asi.planning.search import plan
from fed_asi.planning.trials import undominated
from fed_asi.tucker import kept_numel
from networks import Decoder


def gradients(model: nn.Module, x: Tensor, y: Tensor) -> dict[str, Tensor]:
    """The exact gradients of a copy in eval mode."""
    copied = copy.deepcopy(model).eval().requires_grad_(True)
    F.cross_entropy(copied(x), y).backward()
    return {name: p.grad for name, p in copied.named_parameters() if p.grad is not None}


def test_recorded_gradients_are_autograds(model: nn.Module, batch: tuple[Tensor, Tensor]) -> None:
    double = copy.deepcopy(model).double().eval().requires_grad_(False)
    x, y = batch[0].double(), batch[1]
    graph = analyse(double)
    names = [n for n, m in double.named_modules() if isinstance(m, (nn.Conv2d, nn.Linear))]
    exact = gradients(double, x, y)
    for item in record(double, graph, names, x, y):
        found = item.weight_gradient(item.canonical())
        torch.testing.assert_close(found, exact[f"{item.name}.weight"], rtol=1e-10, atol=1e-12)
        bias = exact[f"{graph.norms.get(item.name, item.name)}.bias"]
        torch.testing.assert_close(item.bias_gradient, bias, rtol=1e-10, atol=1e-12)


def test_the_model_and_the_random_state_are_only_read(batch: tuple[Tensor, Tensor]) -> None:
    model = models.build("tiny", 10, None, 16).train()
    model.get_submodule("classifier").requires_grad_(False)
    before = {n: (t.clone(), t.requires_grad) for n, t in model.named_parameters()}
    buffers = {n: t.clone() for n, t in model.named_buffers()}
    state = torch.get_rng_state()
    profile(model, *batch, micro_batches=(4,), density=2, trained=["classifier"])
    assert torch.equal(torch.get_rng_state(), state)
    assert model.training
    assert all(
        torch.equal(t, before[n][0]) and t.requires_grad == before[n][1] for n, t in model.named_parameters()
    )
    assert all(torch.equal(t, buffers[n]) for n, t in model.named_buffers())
    assert all(t.grad is None for t in model.parameters())
    assert not any(m._forward_hooks for m in model.modules())


@pytest.mark.parametrize("centered", [False, True])
def test_errors_are_those_of_the_compressed_model(
    model: nn.Module, batch: tuple[Tensor, Tensor], made: Profile, centered: bool
) -> None:
    """The candidate's error equals the distance of the compressed model's gradient from the exact one."""
    name = "blocks.1.inverted_bottleneck.conv"
    layer, method = made.layer(name), Quantized(4, centered=centered)
    found = compressed_gradients(model, batch, {name: method}, {name: layer.mean})
    exact = compressed_gradients(model, batch, {name: Vanilla(centered=centered)}, {name: layer.mean})
    candidate = next(c for c in layer.candidates[4] if c.method == method)
    error = float((found[f"{name}.weight"] - exact[f"{name}.weight"]).norm())
    assert candidate.error > 0
    assert error == pytest.approx(candidate.error, rel=1e-3)
    assert candidate.captured == pytest.approx(layer.centered_energy - candidate.error**2)


def compressed_gradients(
    model: nn.Module,
    batch: tuple[Tensor, Tensor],
    methods: dict[str, Quantized | Vanilla],
    means: dict[str, tuple[float, ...]],
) -> dict[str, Tensor]:
    copied = copy.deepcopy(model).train()
    compress_(copied, methods, means=means)
    norm = analyse(model).norms.get(next(iter(methods)))
    F.cross_entropy(copied(batch[0]), batch[1]).backward()
    assert norm is not None
    return {n: p.grad for n, p in copied.named_parameters() if p.grad is not None}


def test_progress_is_told_from_nothing_to_all(model: nn.Module, batch: tuple[Tensor, Tensor]) -> None:
    told: list[tuple[int, int]] = []
    made = profile(
        model,
        *batch,
        micro_batches=(1, 4),
        density=2,
        progress=lambda done, total: told.append((done, total)),
    )
    total = 3 * len(made.layers)  # two micro-batches and the floor of each
    assert told == [(done, total) for done in range(total + 1)]


def test_exact_forms_have_no_error_and_capture_everything(made: Profile) -> None:
    for layer in made.layers:
        for candidates in layer.candidates.values():
            for c in candidates:
                if isinstance(c.method, (Vanilla, SpatialMean)):
                    assert c.error == 0.0
                    assert c.captured == layer.centered_energy


def test_more_bits_and_higher_ranks_err_less(made: Profile) -> None:
    for layer in made.layers:
        for candidates in layer.candidates.values():
            error = {c.method: c.error for c in candidates}
            assert error[Quantized(8)] <= error[Quantized(4)]
            if not layer.head:
                tucker = [c for c in candidates if isinstance(c.method, ASI)]
                assert max(c.error for c in tucker) > min(c.error for c in tucker)


def test_published_profiles_hold_the_epsilon_grid_alone(
    model: nn.Module, batch: tuple[Tensor, Tensor]
) -> None:
    found = profile(model, *batch, micro_batches=(8,), methods=("asi",), selection="published")
    for layer in found.layers[:-1]:
        assert {c.epsilon for c in layer.candidates[8]} == set(PUBLISHED_EPSILONS)
    sizes = [c.published_bytes for c in found.layers[3].candidates[8]]
    assert sizes == sorted(sizes)


def test_names_of_parameters_choose_their_layers(model: nn.Module, batch: tuple[Tensor, Tensor]) -> None:
    trained = ["blocks.2.point_linear.bn.weight", "classifier.weight", "classifier.bias"]
    found = profile(model, *batch, micro_batches=(1,), trained=trained, density=2)
    assert [layer.name for layer in found.layers] == ["blocks.2.point_linear.conv", "classifier"]
    assert found.layers[-1].head


def test_what_is_wrong_is_named(model: nn.Module, batch: tuple[Tensor, Tensor], made: Profile) -> None:
    x, y = batch
    with pytest.raises(ConfigError) as raised:
        profile(model, x, y[:3], methods=("assi",), selection="publishd", micro_batches=(0,))
    assert len(raised.value.problems) == 4
    with pytest.raises(ConfigError, match="none of clasifier is a convolution"):
        profile(model, x, y, trained=["clasifier"])
    with pytest.raises(ProfileError, match=r"input_shape \(3, 32, 32\) instead of \(3, 16, 16\)"):
        made.check(model, torch.zeros(1, 3, 32, 32))
    with pytest.raises(ProfileError, match=r"model .* instead of"):
        made.check(models.build("tiny", 3, None, 16), x)
    made.check(model, x)


def test_numbers_that_overflow_are_named(model: nn.Module, batch: tuple[Tensor, Tensor]) -> None:
    words, (x, y) = r"squared norm of its input on the calibration images is infinite", batch
    with pytest.raises(ConfigError, match=words):
        profile(model, x * 1e25, y, methods=("hosvd",))
    large = copy.deepcopy(model)
    with torch.no_grad():
        next(large.parameters()).fill_(float("nan"))
    with pytest.raises(ConfigError, match=words):
        profile(large, x, y, methods=("hosvd",))


def test_published_ranks_hold_their_share_of_the_energy() -> None:
    x = torch.randn(1, 6, 8, 5, 5, dtype=torch.float64) ** 3
    values = spectra(x)
    for mode, rank in enumerate(published_ranks(values, 0.8)):
        singular = np.linalg.svd(x[0].movedim(mode, 0).flatten(1).numpy(), compute_uv=False) ** 2
        share = np.cumsum(singular) / singular.sum()
        assert share[rank - 1] >= 0.8
        assert rank == 1 or share[rank - 2] < 0.8


def test_dominated_forms_are_dropped_and_the_grid_is_kept() -> None:
    def form(rank: int, size: int, error: float, epsilon: float | None = None) -> Candidate:
        return Candidate(ASI((1, rank)), size, size, error, 1 - error**2, epsilon)

    found = undominated([form(1, 10, 0.5), form(2, 20, 0.6), form(3, 20, 0.2), form(4, 30, 0.9, 0.4)])
    assert [c.method for c in found] == [ASI((1, 1)), ASI((1, 3)), ASI((1, 4))]


def test_profiles_are_read_back_as_they_were(made: Profile) -> None:
    assert Profile.from_json(made.to_json()) == made


def test_proposals_rise_from_one_to_nearly_whole() -> None:
    x = torch.randn(4, 2, 16, 4, 4)
    dims = x.shape[1:]
    ranks = proposed_ranks(dims, spectra(x), 9)
    sizes = [kept_numel(dims, r) for r in ranks]
    assert len(ranks) <= 9
    assert ranks[0] == (2, 1, 1, 1)  # with the batch mode whole no factor is kept: smaller than at rank 1
    assert set(ranks[0][1:]) == {1}
    assert sizes == sorted(sizes)
    assert kept_numel(dims, dims) > sizes[-1] > 0.5 * kept_numel(dims, dims)


def test_a_rival_that_no_layer_supports_is_named_with_the_reasons() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 8), nn.ReLU(), nn.Linear(8, 3))
    x, y = torch.randn(4, 3, 2, 2), torch.tensor([0, 1, 2, 0])
    with pytest.raises(UnsupportedLayerError, match=r"no layer supports filter: 1: "):
        profile(model, x, y, micro_batches=(2,), methods=("filter",))
    made = profile(model, x, y, micro_batches=(2,), density=2)
    with pytest.raises(ConfigError, match=r"can be kept as hosvd, only as asi, bias, quantized, vanilla"):
        plan(made, None, methods=("hosvd",))


def test_a_pruned_layer_is_left_out_of_a_profile_or_refused_by_name(batch: tuple[Tensor, Tensor]) -> None:
    net, (x, y) = Decoder(), batch
    prune.l1_unstructured(net.down, "weight", amount=0.5)
    net(x)
    made = profile(net, x, y, micro_batches=[4], methods=("vanilla",))
    assert [layer.name for layer in made.layers] == ["up", "head"]
    with pytest.raises(
        UnsupportedLayerError, match=r"down: its weight is not a plain parameter .*make it plain"
    ):
        profile(net, x, y, trained=["down.weight_orig", "head"], micro_batches=[4])
