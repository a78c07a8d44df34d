"""A device's RAM and flash: sums of parts, each of which is what it claims to be."""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import nn

from fed_asi import ASI, BiasOnly, Quantized, compress_, device_memory
from fed_asi.compression.cut import folded
from fed_asi.memory.arena.planned import arena, inference_arena
from fed_asi.memory.stored import stored_bytes
from fed_asi.methods.channels import Channels
from fed_asi.training.sgd import Sgd
from tails import Tail, tail_of


def weights(model: nn.Module, *, trained: bool) -> int:
    tensors = [p for p in model.parameters() if p.requires_grad is trained]
    return sum(t.nbytes for t in (*tensors, *(() if trained else model.buffers())))


def memory_of(tail: Tail, **changes: object) -> object:
    return device_memory(tail.model, tail.images, tail.y, trunk=tail.trunk, **changes)


def test_every_part_by_hand() -> None:
    tail = tail_of("tiny", ASI((1, 4, 2, 2)), batch=3)
    sgd = partial(Sgd, momentum=0.9)
    found = memory_of(tail, gradients="accumulated", optimizer=sgd, reserve_bytes=1000)
    trained = weights(tail.model, trained=True)
    assert found.trained_bytes == found.gradient_bytes == found.optimizer_bytes == trained
    assert found.step == arena(tail.model, tail.x, tail.y, gradients="accumulated", optimizer=sgd)
    assert found.trunk == inference_arena(tail.trunk, tail.images[:1])
    assert found.waiting_bytes == tail.x[1:].nbytes
    assert found.frozen_bytes == weights(tail.trunk, trained=False) + weights(tail.model, trained=False)
    assert found.static_bytes == 3 * trained + found.factor_bytes
    larger = max(found.trunk.bytes + found.waiting_bytes, found.step.bytes)
    assert found.ram_bytes == found.static_bytes + larger + 1000
    assert found.flash_bytes == found.frozen_bytes + found.constant_bytes


def test_trained_weights_in_float16_take_half_and_copies_of_them_do_not() -> None:
    tail = tail_of("tiny", ASI((1, 4, 2, 2)), batch=3)
    changes = {"gradients": "accumulated", "optimizer": partial(Sgd, momentum=0.9), "copies": 2}
    whole, half = (memory_of(tail, trained_as=form, **changes) for form in ("float32", "float16"))
    assert 2 * half.trained_bytes == whole.trained_bytes == weights(tail.model, trained=True)
    same = (
        "gradient_bytes",
        "optimizer_bytes",
        "strategy_bytes",
        "factor_bytes",
        "flash_bytes",
        "step",
        "trunk",
    )
    assert [getattr(half, one) for one in same] == [getattr(whole, one) for one in same]
    assert whole.ram_bytes - half.ram_bytes == half.trained_bytes


def test_storage_is_counted_in_flash_and_in_the_trunks_arena_by_hand() -> None:
    tail = tail_of("mcunet", ASI((1, 2, 2, 2), warm=False), batch=3, size=64, layers=2)
    tail.trunk = folded(tail.trunk)
    frozen = [p for p in tail.model.parameters() if not p.requires_grad]
    statistics = sum(b.nbytes for b in tail.model.buffers())
    whole = memory_of(tail, gradients="applied")
    for storage, share in (("float16", 2), ("int8", 4)):
        found = memory_of(tail, gradients="applied", storage=storage)
        assert found.trunk.bytes * share == whole.trunk.bytes
        assert found.waiting_bytes * share == whole.waiting_bytes
        assert found.step == whole.step
        assert found.static_bytes == whole.static_bytes
        flash = stored_bytes([*tail.trunk.parameters(), *frozen], storage)
        assert found.frozen_bytes == flash + statistics
        assert found.frozen_bytes < whole.frozen_bytes / (share - 1)
    assert memory_of(tail, gradients="applied", storage="float32") == whole


def test_what_a_weight_has_beside_the_channels_that_train_is_stored_too() -> None:
    net = nn.Sequential(
        nn.Conv2d(3, 6, 3),
        nn.Conv2d(6, 6, 3, groups=6),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(6, 4),
    )
    energies = {"0": torch.arange(3.0), "1": torch.arange(6.0)}
    compress_(net, {"0": Channels(1), "1": Channels(2), "4": BiasOnly()}, energies=energies)
    x, y = torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(0)), torch.tensor([1])
    # Two of three columns of six rows, four of six filters, the classifier; their biases train.
    rows, numbers = 6 + 4 + 4, 6 * 2 * 9 + 4 * 9 + 4 * 6
    for storage, expected in (
        ("float32", 4 * numbers),
        ("float16", 2 * numbers),
        ("int8", numbers + 4 * rows),
    ):
        found = device_memory(net, x, y, gradients="applied", storage=storage)
        assert found.frozen_bytes == expected
        assert found.trained_bytes == 4 * (6 * 9 + 6 + 2 * 9 + 6 + 4)


def test_what_a_strategy_and_a_codec_hold_is_static() -> None:
    tail = tail_of("tiny", None, layers=1)
    plain, held = memory_of(tail), memory_of(tail, copies=3)
    assert (plain.strategy_bytes, held.strategy_bytes) == (0, 3 * weights(tail.model, trained=True))
    assert held.static_bytes - plain.static_bytes == held.ram_bytes - plain.ram_bytes == held.strategy_bytes
    assert held.flash_bytes == plain.flash_bytes
    assert "strategy and codec" in str(held)


def test_the_phase_that_needs_more_is_named_with_its_largest_tensors() -> None:
    tail = tail_of("mcunet", Quantized(8), batch=1, size=64, layers=4)
    found = memory_of(tail, gradients="applied")
    assert found.phase == "step"
    assert found.largest() == found.step.at_peak[:3]
    small = tail_of("mcunet", ASI((1, 2, 2, 2), warm=False), batch=1, size=128, layers=2)
    found = memory_of(small, gradients="applied")
    assert found.phase == "trunk"
    assert found.largest(2) == found.trunk.at_peak[:2]
    assert found.largest(1)[0].bytes == 512 * 1024
    text = str(found)
    assert "the trunk needs more" in text
    assert "RAM" in text
    assert found.largest(1)[0].name in text


def test_the_documents_example_runs(capsys: pytest.CaptureFixture[str]) -> None:
    text = (Path(__file__).parents[2] / "docs" / "explanation" / "memory_of_a_device.md").read_text()
    blocks = re.findall(r"^```python\n(.*?)^```", text, flags=re.S | re.M)
    for block, said in zip(blocks, ("needs more", 'weights move by "layer"'), strict=True):
        exec(compile(block, "memory_of_a_device.md", "exec"), {"__name__": "example"})
        assert said in capsys.readouterr().out


def test_a_model_trained_whole_has_no_trunk() -> None:
    net, x, y = nn.Linear(100, 10, bias=False), torch.ones(8, 100), torch.zeros(8, dtype=torch.long)
    found = device_memory(net, x, y)
    assert (found.trunk, found.trunk_bytes, found.waiting_bytes, found.flash_bytes) == (None, 0, 0, 0)
    assert found.ram_bytes == 4000 + found.step.bytes


def test_a_fixed_mean_is_static() -> None:
    tail = tail_of("tiny", None, layers=1)
    name = next(
        n for n, m in tail.model.named_modules() if isinstance(m, nn.Conv2d) and m.weight.requires_grad
    )
    channels = tail.model.get_submodule(name).in_channels
    compress_(tail.model, {name: Quantized(8, centered=True)}, means={name: torch.zeros(channels)})
    assert memory_of(tail).mean_bytes == 4 * channels


@pytest.mark.parametrize("reserve", [0, 40 * 1024])
def test_a_reserve_is_ram_alone(reserve: int) -> None:
    tail = tail_of("tiny", None, batch=1)
    assert memory_of(tail, reserve_bytes=reserve).ram_bytes == memory_of(tail).ram_bytes + reserve
    assert memory_of(tail, reserve_bytes=reserve).flash_bytes == memory_of(tail).flash_bytes
