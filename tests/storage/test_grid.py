"""Grids of eight bits, against rounding by hand in numpy and torch's own fake quantisation."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fed_asi.storage.grid import MOST_BIAS, Grid, grid_of, rounded_rows, row_scales

numbers = st.floats(-100, 100, width=32)


def weight(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


@given(numbers, numbers)
def test_a_grid_has_zero_and_256_numbers_and_covers_its_range_to_half_a_step(a: float, b: float) -> None:
    low, high = min(a, b, 0.0), max(a, b, 0.0)
    grid = grid_of(a, b) if a < b else grid_of(b, a)
    assert (grid.high - grid.low, grid.low <= 0 <= grid.high) == (255, True)
    assert -128 <= grid.zero <= 127
    assert grid.scale == np.float32(grid.scale)
    slack = grid.scale * 0.501
    assert grid.scale * grid.low <= low + slack
    assert grid.scale * grid.high >= high - slack


def test_grids_by_hand() -> None:
    assert grid_of(0.0, 255.0) == Grid(1.0, 0, 255)
    assert grid_of(0.0, 255.0).zero == -128
    assert grid_of(-128.0, 127.0) == Grid(1.0, -128, 127)
    assert grid_of(-128.0, 127.0).zero == 0
    assert grid_of(-255.0, -3.0) == Grid(1.0, -255, 0)
    assert grid_of(0.0, 0.0).scale == np.float32(1 / 255)  # nothing seen: no step of 0
    assert Grid(1.0, -200, 55).most == 200


@pytest.mark.parametrize("shape", [(4, 3, 3, 3), (5, 1, 7, 7), (6, 10)])
def test_weights_are_rounded_row_by_row_as_by_hand(shape: tuple[int, ...]) -> None:
    w = weight(*shape)
    scales = row_scales(w, torch.zeros(len(w)), 1.0)
    found = rounded_rows(w, scales)
    by_hand = np.empty(shape, np.int8)
    for row, values in enumerate(w.numpy().astype(np.float64)):
        scale = np.float32(np.abs(values).max() / 127)
        assert scales[row] == scale
        by_hand[row] = np.clip(np.rint(values / np.float64(scale)), -127, 127)
    assert np.array_equal(found.numpy(), by_hand)
    assert found.abs().flatten(1).amax(1).tolist() == [127] * len(w)


def test_weights_are_those_of_torchs_fake_quantisation() -> None:
    w = weight(8, 4, 3, 3)
    scales = row_scales(w, torch.zeros(8), 1.0)
    theirs = torch.fake_quantize_per_channel_affine(
        w, scales.float(), torch.zeros(8, dtype=torch.int32), 0, -127, 127
    )
    ours = (rounded_rows(w, scales) * scales.view(-1, 1, 1, 1)).float()
    assert (ours - theirs).abs().max() <= 1e-6 * scales.max()


def test_a_row_of_zeros_and_a_bias_that_is_large_beside_its_row_get_a_scale() -> None:
    w = torch.zeros(3, 2)
    w[1] = 1e-12
    scales = row_scales(w, torch.tensor([0.0, 5.0, 2.0]), 0.01)
    assert scales[0] == 1
    steps = torch.tensor([0.0, 5.0, 2.0]).double() / (scales * 0.01)
    assert (steps <= MOST_BIAS * (1 + 1e-6)).all()
    assert rounded_rows(w, scales).tolist() == [[0, 0]] * 3
