"""The arena that a user asks for: another planner's figures, its text, remembered plans, and what it refuses.

787.6 and 5,135.6 KiB are what ExecuTorch 1.5.1 plans for the same step of plain PyTorch.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import pytest
import torch
from torch import Tensor, nn

from fed_asi import ASI, HOSVD, BiasOnly, Quantized, Vanilla, arena, compress_
from fed_asi.errors import UnsupportedLayerError
from fed_asi.memory.arena import planned
from fed_asi.memory.arena.planned import inference_arena
from fed_asi.methods import Channels, FixedSubspace
from fed_asi.training.at_once import SgdWithParts, at_once
from fed_asi.training.steps import training_mode_
from tails import tail_of

KIB = 1024


@pytest.mark.parametrize(("micro_batch", "kib"), [(1, 787.6), (16, 5135.6)])
def test_plain_pytorch_takes_what_executorch_plans(micro_batch: int, kib: float) -> None:
    tail = tail_of("mcunet", None, batch=micro_batch, size=128, layers=4)
    found = arena(tail.model, tail.x, tail.y)
    assert found.bytes / KIB == pytest.approx(kib, rel=0.01)
    assert found.lower_bound_bytes <= found.bytes
    assert round(found.trained_bytes / KIB, 1) == 757.5
    freed = arena(tail.model, tail.x, tail.y, gradients="applied")
    expected = {1: 658.0, 16: 5128.0}[micro_batch]
    assert freed.bytes / KIB == pytest.approx(expected, rel=0.01)


@pytest.mark.few(1)
@pytest.mark.parametrize(("size", "kib"), [(128, 640), (96, 360), (64, 160), (48, 90)])
def test_the_trunk_takes_its_largest_expansion(size: int, kib: int) -> None:
    tail = tail_of("mcunet", None, batch=1, size=size, layers=4)
    assert inference_arena(tail.trunk, tail.images).bytes == kib * KIB


@pytest.mark.slow
@pytest.mark.parametrize("micro_batch", [1, 4, 16])
@pytest.mark.parametrize("gradients", ["held", "accumulated", "applied"])
@pytest.mark.parametrize("method", [None, Vanilla(), Quantized(8), ASI((1, 8, 3, 3)), BiasOnly()], ids=str)
def test_a_layout_is_within_three_percent_of_what_no_layout_can_beat(
    method: object, gradients: str, micro_batch: int
) -> None:
    tail = tail_of("mcunet", method, batch=micro_batch, size=128, layers=4)
    found = arena(tail.model, tail.x, tail.y, gradients=gradients)
    assert found.bytes <= 1.03 * found.lower_bound_bytes


def test_it_says_what_fills_it_at_the_worst_moment() -> None:
    tail = tail_of("tiny", None)
    found = arena(tail.model, tail.x, tail.y)
    alive = found.at_peak
    assert sum(-(-one.bytes // 16) * 16 for one in alive) == found.lower_bound_bytes
    assert [one.bytes for one in alive] == sorted((one.bytes for one in alive), reverse=True)
    text = str(found)
    assert text.splitlines()[0].startswith("arena ")
    assert f"fullest at {found.operations[found.peak]}" in text
    assert alive[0].name in text
    assert "more" in text
    names = {one.name for one in found.tensors}
    assert {"input", "labels", "loss", "gradient of classifier.weight"} <= names


def test_gradients_are_where_they_are_said_to_be() -> None:
    tail = tail_of("tiny", Vanilla())
    held, added, gone = (
        arena(tail.model, tail.x, tail.y, gradients=rule) for rule in ("held", "accumulated", "applied")
    )
    assert held.gradient_bytes == gone.gradient_bytes == 0
    assert added.gradient_bytes == added.trained_bytes > 0
    assert gone.bytes <= added.bytes <= held.bytes
    assert held.saved_bytes == added.saved_bytes == gone.saved_bytes


def test_where_layers_find_their_gradients_none_is_whole() -> None:
    tail = tail_of("mcunet", ASI((1, 8, 3, 3), warm=False), batch=1, size=128, layers=4)
    applied = arena(tail.model, tail.x, tail.y, gradients="applied")
    thin = arena(tail.model, tail.x, tail.y, gradients="applied", mover=at_once)
    assert thin.saved_bytes == applied.saved_bytes
    assert thin.bytes <= 151 * KIB
    assert applied.bytes > 360 * KIB  # the last convolution's gradient alone
    assert arena(tail.model, tail.x, tail.y, gradients="applied", mover=at_once) is thin


def test_products_with_a_large_weight_take_little_memory_beside_its_gradient() -> None:
    """gamma's gradient comes from dW x W, which would be another weight."""
    layers = (
        nn.Conv2d(256, 512, 3, padding=1, bias=False),
        nn.BatchNorm2d(512),
        nn.Flatten(),
        nn.Linear(4608, 2),
    )
    model = nn.Sequential(*layers).eval()
    model[3].requires_grad_(False)
    x, y = torch.randn(1, 256, 3, 3), torch.zeros(1, dtype=torch.long)
    training_mode_(model)
    compress_(model, Vanilla())
    found = arena(model, x, y, gradients="applied")
    weight = 256 * 512 * 9 * 4
    assert weight < found.lower_bound_bytes < weight + 128 * KIB


@pytest.mark.parametrize("gradients", ["held", "accumulated"])
def test_weight_decay_of_a_part_takes_little_memory(gradients: str) -> None:
    model = nn.Sequential(nn.Linear(1024, 512))
    compress_(model, {"0": Channels(64)}, energies={"0": torch.ones(1024)})
    x, y = torch.randn(1, 1024), torch.zeros(1, dtype=torch.long)
    plain, decayed = (
        arena(model, x, y, gradients=gradients, optimizer=partial(SgdWithParts, weight_decay=rate))
        for rate in (0.0, 1e-2)
    )
    assert decayed.bytes <= plain.bytes + 16 * KIB
    part = 4 * 64 * 512
    assert plain.bytes < part * (gradients == "held") + 8 * KIB


def test_alignment_is_kept() -> None:
    tail = tail_of("tiny", ASI((1, 4, 2, 2)))
    found = arena(tail.model, tail.x, tail.y, alignment=64)
    assert all(one.offset % 64 == 0 for one in found.tensors)
    assert found.bytes % 64 == 0
    assert found.bytes >= arena(tail.model, tail.x, tail.y, alignment=1).lower_bound_bytes


def test_plans_are_remembered_by_shape(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(planned, "_PLANNED", {})
    one, other = tail_of("tiny", Quantized(8)), tail_of("tiny", Quantized(8))
    first = arena(one.model, one.x, one.y)
    assert arena(other.model, 2 * other.x, other.y) is first
    assert arena(one.model, one.x[:1], one.y[:1]) is not first
    assert arena(one.model, one.x, one.y, gradients="applied") is not first
    assert len(planned._PLANNED) == 3
    monkeypatch.setattr(planned, "REMEMBERED", 3)
    arena(one.model, one.x, one.y, alignment=4)
    assert len(planned._PLANNED) == 3


class Deciding(nn.Linear):
    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input * 2 if input.max() > 0 else input)


def test_a_step_that_depends_on_the_data_is_refused_by_the_name_of_its_layer() -> None:
    net = nn.Sequential(nn.Linear(4, 4), Deciding(4, 3))
    x, y = torch.ones(2, 4), torch.zeros(2, dtype=torch.long)
    with pytest.raises(UnsupportedLayerError, match="Sequential: 1 decides by the data") as found:
        arena(net, x, y)
    assert "\n" not in str(found.value)
    assert arena(net, x, y, of_this_batch=True).data_dependent == ("1",)


@pytest.mark.parametrize("method", [HOSVD(0.8), FixedSubspace(0.7)], ids=str)
def test_so_is_a_method_whose_ranks_do(method: object) -> None:
    tail = tail_of("tiny", method)
    with pytest.raises(UnsupportedLayerError, match=r"blocks\S+ decides by the data"):
        arena(tail.model, tail.x, tail.y)
    assert arena(tail.model, tail.x, tail.y, of_this_batch=True).bytes > 0


def test_an_arena_is_a_value() -> None:
    tail = tail_of("tiny", None)
    found = arena(tail.model, tail.x, tail.y)
    assert replace(found) == found
    assert hash(found.tensors[0]) == hash(replace(found.tensors[0]))
