"""Small numbers survive packing, in the promised bytes."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fed_asi.layers.bits import pack_levels, packed_bytes, unpack_levels, width_for


@given(st.sampled_from([1, 2, 4, 8, 16]), st.data())
def test_packing_is_lossless_and_as_small_as_said(width: int, data: st.DataObject) -> None:
    top = 2 ** min(width, 15) - 1
    levels = torch.tensor(data.draw(st.lists(st.integers(0, top), min_size=1, max_size=40)))
    packed = pack_levels(levels, width)
    assert (
        packed.untyped_storage().nbytes() == packed_bytes(len(levels), width) == -(-len(levels) * width // 8)
    )
    assert torch.equal(unpack_levels(packed, len(levels), width).long(), levels)


@pytest.mark.parametrize(
    ("levels", "width"), [(1, 1), (2, 1), (3, 2), (4, 2), (9, 4), (25, 8), (256, 8), (400, 16)]
)
def test_the_fewest_bits_that_tell_levels_apart(levels: int, width: int) -> None:
    assert width_for(levels) == width
