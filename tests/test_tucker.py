"""Tucker forms: against tensorly, and against their defining properties."""

from __future__ import annotations

import numpy as np
import pytest
import tensorly
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tensorly.decomposition import partial_tucker
from torch import Tensor

from fed_asi import tucker
from fed_asi.methods.asi import fitted_ranks, sequential
from strategies import seeded

SHAPES = st.lists(st.integers(1, 6), min_size=2, max_size=4).map(tuple)


def decaying(*shape: int, seed: int = 0) -> Tensor:
    """A tensor whose energy decays along every mode, as activations' does; one micro-batch."""
    x = seeded(1, *shape, seed=seed)
    for mode, d in enumerate(shape):
        x = x * (0.5 ** torch.arange(d)).view([-1 if i == mode + 1 else 1 for i in range(x.dim())])
    rotations = [torch.linalg.qr(seeded(1, d, d, seed=seed + 1 + i))[0] for i, d in enumerate(shape)]
    return tucker.expand(x, rotations)


def error(x: Tensor, core: Tensor, factors: tucker.Factors) -> float:
    return float((tucker.expand(core, factors) - x).norm() / x.norm())


@given(SHAPES, st.data())
@settings(max_examples=60, deadline=None, derandomize=True)
def test_factors_are_orthonormal_and_sizes_are_counted(shape: tuple[int, ...], data: st.DataObject) -> None:
    drawn = tuple(data.draw(st.integers(1, d)) for d in shape)
    ranks = fitted_ranks(drawn, shape, "layer")
    x = seeded(2, *shape)
    for decompose in (tucker.published, sequential):
        core, factors = decompose(x, ranks, [None] * len(ranks), 0)
        assert core.shape == (2, *ranks)
        for factor, d, r in zip(factors, shape, ranks, strict=True):
            assert (factor is None) == (r == d)
            if factor is not None:
                assert factor.shape == (2, d, r)
                gram = factor.mT @ factor
                if (
                    decompose is sequential
                    and d == shape[1]
                    and tucker.few_pixels((shape[0], *shape[2:], d), r, 1)
                ):
                    gram = torch.diag_embed(gram.diagonal(dim1=1, dim2=2))
                torch.testing.assert_close(gram, torch.eye(r).expand(2, r, r).double())
        kept = core[0].numel() + sum(f[0].numel() for f in factors if f is not None)
        assert kept == tucker.kept_numel(shape, ranks)


@pytest.mark.parametrize("start", ["cold", "warm"])
def test_few_pixels_are_kept_whole_at_as_many_ranks_and_nearly_best_at_fewer(start: str) -> None:
    x = decaying(2, 30, 3, 3, seed=5)
    whole = fitted_ranks((2, 29, 3, 3), x.shape[1:], "layer")
    assert whole == (2, 18, 3, 3)
    warm = [None, seeded(1, 30, 18, seed=4)[0], None, None] if start == "warm" else [None] * 4
    assert error(x, *sequential(x, whole, warm, 0)) < 1e-12
    values = torch.linalg.svdvals(tucker.unfold(x, 1)[0])
    best = float(values[6:].square().sum().sqrt() / values.norm())
    assert error(x, *sequential(x, (2, 6, 3, 3), warm, 0, iterations=2)) <= 1.1 * best


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("micro_batches", [1, 2])
def test_bases_of_a_part_of_many_samples_are_nearly_the_best(
    layout: torch.memory_format, micro_batches: int
) -> None:
    """From 64 samples on the channels' basis is that of half of them, the spatial ones that of a few."""
    parts = [mixed(70, 20, 7, 6, seed=seed) for seed in range(micro_batches)]
    x = torch.cat(parts).to(memory_format=layout).view(micro_batches, 70, 20, 7, 6)
    ranks, found = (30, 8, 4, 3), tucker.Factors()
    for _ in range(4):
        starts = [None if f is None else f[0] for f in found] or [None] * 4
        core, found = sequential(x, ranks, starts, 0)
    best = tucker.published(x, ranks, [None] * 4, 0)
    for _ in range(6):
        best = tucker.published(x, ranks, [None if f is None else f[0] for f in best[1]], 0)
    assert core.shape == (micro_batches, *ranks)
    assert error(x, core, found) <= 1.1 * error(x, *best)
    for factor in found:
        assert factor is not None
        unit = torch.eye(factor.shape[2]).double().expand(micro_batches, -1, -1)
        torch.testing.assert_close(factor.mT @ factor, unit)


def mixed(samples: int, *shape: int, seed: int) -> Tensor:
    """Samples alike in their channels and space, as activations are: (samples, *shape)."""
    shared = decaying(samples, *shape, seed=seed)[0]
    return torch.einsum("ns,s...->n...", seeded(samples, samples, seed=seed), shared)


@given(SHAPES)
@settings(max_examples=30, deadline=None, derandomize=True)
def test_full_ranks_lose_nothing(shape: tuple[int, ...]) -> None:
    x = seeded(3, *shape)
    core, factors = tucker.published(x, shape, [None] * len(shape), 0)
    torch.testing.assert_close(tucker.expand(core, factors), x)


@pytest.mark.parametrize("shape", [(6, 7, 5, 4), (8, 9), (5, 6, 7)])
def test_as_good_as_tensorly(shape: tuple[int, ...]) -> None:
    """A few warm-started steps reach the error of tensorly's alternating least squares."""
    x = decaying(*shape)
    ranks = [max(1, d // 2) for d in shape]
    with tensorly.backend_context("numpy"):
        (core, factors), _ = partial_tucker(
            x[0].numpy(), rank=ranks, modes=list(range(len(shape))), init="svd", n_iter_max=50
        )
        best = tensorly.tucker_to_tensor((core, factors))
    best_error = float(np.linalg.norm(best - x[0].numpy()) / x.norm())
    for decompose in (tucker.published, sequential):
        found: tucker.Factors = [None] * len(shape)
        for _ in range(8):
            core_here, found = decompose(x, ranks, [None if f is None else f[0] for f in found], 0)
        assert error(x, core_here, found) <= 1.05 * best_error


def test_warm_starts_get_better_step_by_step() -> None:
    x, ranks = decaying(6, 12, 7, 7, seed=3), (3, 4, 3, 3)
    found: tucker.Factors = [None] * 4
    errors = []
    for _ in range(4):
        core, found = tucker.published(x, ranks, [None if f is None else f[0] for f in found], 0)
        errors.append(error(x, core, found))
    assert errors[-1] < errors[0]


@pytest.mark.parametrize("epsilon", [0.3, 0.8, 0.99])
def test_hosvd_holds_its_share_with_the_fewest_vectors(epsilon: float) -> None:
    x = decaying(6, 7, 5, 4)
    _, factors = tucker.hosvd(x, epsilon)
    for mode, factor in enumerate(factors):
        values = torch.linalg.svdvals(tucker.unfold(x, mode)[0]) ** 2
        share = values.cumsum(0) / values.sum()
        smallest = int((share < epsilon).sum()) + 1
        assert (values.numel() if factor is None else factor.shape[2]) == smallest


def test_a_tensor_of_zeros_has_rank_one() -> None:
    core, factors = tucker.hosvd(torch.zeros(1, 3, 4), 0.8)
    assert core.shape == (1, 1, 1)
    assert torch.equal(tucker.expand(core, factors), torch.zeros(1, 3, 4))


def test_the_start_is_seeded_and_leaves_the_global_state_alone() -> None:
    before = torch.random.get_rng_state()
    like = torch.zeros((), dtype=torch.float64)
    first, again = (tucker.fit_start(None, 3, 9, 2, like) for _ in range(2))
    assert torch.equal(first, again)
    assert not torch.equal(first, tucker.fit_start(None, 4, 9, 2, like))
    assert torch.equal(before, torch.random.get_rng_state())


def test_a_warm_start_is_cut_or_filled_up() -> None:
    like = torch.zeros((), dtype=torch.float64)
    warm = seeded(9, 3)
    assert torch.equal(tucker.fit_start(warm, 0, 9, 2, like), warm[:, :2])
    grown = tucker.fit_start(warm, 0, 9, 5, like)
    assert grown.shape == (9, 5)
    assert torch.equal(grown[:, :3], warm)
    assert tucker.fit_start(warm, 0, 8, 3, like).shape == (8, 3)


@pytest.mark.parametrize("scale", [1e-40, 1e-30, 1e-9, 1.0, 1e9, 1e30])
def test_a_leading_factor_is_the_same_at_every_scale(scale: float) -> None:
    matrix = torch.randn(6, 9, generator=torch.Generator().manual_seed(3))
    expected, found = tucker.leading_factor(matrix, 0.8), tucker.leading_factor(matrix * scale, 0.8)
    assert expected is not None
    assert found is not None
    assert found.shape == expected.shape
    torch.testing.assert_close(
        found @ found.mT, expected @ expected.mT, rtol=0, atol=1e-2 if scale < 1e-37 else 1e-5
    )


def test_what_float32_does_not_converge_on_is_done_in_double(monkeypatch: pytest.MonkeyPatch) -> None:
    matrix, eigh = torch.randn(6, 9, generator=torch.Generator().manual_seed(3)), torch.linalg.eigh
    expected = tucker.leading_factor(matrix, 0.8)

    def fails(gram: Tensor) -> tuple[Tensor, Tensor]:
        if gram.dtype == torch.float32:
            raise RuntimeError("failed to converge")
        return eigh(gram)

    monkeypatch.setattr(torch.linalg, "eigh", fails)
    found = tucker.leading_factor(matrix, 0.8)
    assert expected is not None
    assert found is not None
    assert found.dtype == torch.float32
    torch.testing.assert_close(found @ found.mT, expected @ expected.mT, rtol=0, atol=1e-5)
