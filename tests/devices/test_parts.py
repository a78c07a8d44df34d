"""Updates of tensors of which only some places moved, and what a device makes of them."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from fed_asi.devices.parts import received, sent
from fed_asi.errors import RunError


def tensors(seed: int = 0) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    shapes = {
        "dense.weight": (4, 6, 3, 3),
        "depth.weight": (6, 1, 3, 3),
        "head.weight": (3, 5),
        "head.bias": (3,),
    }
    return {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_what_arrives_is_what_was_sent(data: st.DataObject) -> None:
    reference, now = tensors(), tensors()
    for name, dim in (("dense.weight", 1), ("depth.weight", 0), ("head.weight", 1), ("head.bias", 0)):
        length = now[name].shape[dim]
        index = data.draw(st.sets(st.integers(0, length - 1)))
        if index:
            now[name].index_fill_(dim, torch.tensor(sorted(index)), 7.0)
        parcel = sent({name: now[name]}, reference)
        part = now[name].dim() > 1 and 0 < len(index) < length
        assert len(parcel) == (2 if part else 1)
        assert parcel[name].numel() == now[name].numel() * (len(index) if part else length) // length
    found = received(sent(now, reference), reference)
    assert list(found) == list(now)
    assert all(torch.equal(found[name], now[name]) for name in now)
    assert all(torch.equal(one, two) for one, two in zip(reference.values(), tensors().values(), strict=True))


def test_a_zero_that_changed_its_sign_has_moved() -> None:
    reference = {"w": torch.zeros(2, 3)}
    now = {"w": torch.zeros(2, 3)}
    now["w"][1, 2] = -0.0
    now["w"][0, 1] = 1.0
    assert torch.equal(received(sent(now, reference), reference)["w"].signbit(), now["w"].signbit())


def test_in_the_first_round_everything_is_whole() -> None:
    reference = tensors()
    assert sent(reference, reference).keys() == reference.keys()


def test_a_part_that_belongs_nowhere_is_named() -> None:
    reference = tensors()
    now = {name: tensor.clone() for name, tensor in reference.items()}
    now["head.weight"][:, 2] = 0.0
    parcel = sent(now, reference)
    for wrong in (torch.tensor([5], dtype=torch.int32), torch.tensor([0, 1], dtype=torch.int32)):
        with pytest.raises(RunError, match=r"what the server sent of head\.weight is not a part of it"):
            received({**parcel, "head.weight places 1": wrong}, reference)
    with pytest.raises(RunError, match="other is not a part"):
        received({"other places 0": torch.zeros(1, dtype=torch.int32), "other": torch.zeros(1)}, reference)


def test_places_that_moved_outside_of_their_middle_have_moved() -> None:
    reference = {"w": torch.zeros(4, 5, 3, 3)}
    now = {"w": torch.ones(4, 5, 3, 3)}
    now["w"][2, 3, 1, 1] = 0.0
    assert list(sent(now, reference)) == ["w"]
    now["w"][:, 3] = 0.0
    assert sent(now, reference)["w places 1"].tolist() == [0, 1, 2, 4]
