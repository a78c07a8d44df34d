"""Pretraining on the public split: it learns, batch norms included, and the same seed gives the same bits."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from fed_asi.errors import ConfigError
from fed_asi.fleets.config import PretrainConfig
from fed_asi.training.pretraining import pretrain_, pretrain_head_
from fed_asi.training.sgd import Sgd


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        *(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU()),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3)),
    ).eval()


def images(count: int) -> tuple[Tensor, Tensor]:
    """Images whose class is the channel that is bright."""
    y = torch.arange(count) % 3
    x = 0.3 * torch.randn(count, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    x[torch.arange(count), y] += 1.0
    return x, y


SETTINGS = PretrainConfig(epochs=4, lr=0.1, batch_size=8)


def test_it_learns_and_says_how_it_goes() -> None:
    model, told = network(), []
    last = pretrain_(model, *images(48), SETTINGS, seed=1, report=lambda *line: told.append(line))
    assert [epoch for epoch, _ in told] == [1, 2, 3, 4]
    losses = [loss for _, loss in told]
    assert losses[-1] == last < 0.5 * losses[0]
    assert not model.training


def test_the_whole_network_is_trained_batch_norm_included() -> None:
    model = network()
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    before = copy.deepcopy(model.state_dict())
    pretrain_(model, *images(16), SETTINGS, seed=1)
    assert not [name for name, tensor in model.state_dict().items() if torch.equal(before[name], tensor)]


def test_the_same_seed_gives_the_same_bits_whatever_the_global_state() -> None:
    def weights(seed: int, noise: int) -> list[Tensor]:
        model = network()
        torch.manual_seed(noise)
        pretrain_(model, *images(24), SETTINGS, seed=seed)
        return list(model.state_dict().values())

    first = weights(1, 0)
    assert all(torch.equal(a, b) for a, b in zip(first, weights(1, 99), strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(first, weights(2, 0), strict=True))


def test_a_batch_of_one_image_has_no_variance_and_is_left_out() -> None:
    model = network()
    assert pretrain_(model, *images(9), SETTINGS, seed=1) > 0
    assert all(torch.isfinite(tensor).all() for tensor in model.state_dict().values())


def test_the_rate_falls_by_a_half_cosine_over_all_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    rates: list[float] = []
    monkeypatch.setattr(Sgd, "step_", lambda _self, lr: rates.append(lr))
    pretrain_(network(), *images(16), SETTINGS, seed=1)
    assert len(rates) == 4 * 2
    assert rates[0] == pytest.approx(0.1)
    assert rates[4] == pytest.approx(0.05)
    assert rates == sorted(rates, reverse=True)


def test_a_last_image_alone_is_left_out_of_the_loss_too() -> None:
    """Of 9 images in batches of 8, the loss is that of the 8: with a large part at 0 it would be too small."""
    model, settings = network(), PretrainConfig(epochs=1, lr=1e-9, batch_size=8)
    loss = pretrain_(model, *images(9), settings, seed=1)
    assert loss == pytest.approx(
        1.1, abs=0.1
    )  # ln 3, as before any training; a ninth at 0 would make it 0.98


@pytest.mark.parametrize(("count", "batch_size"), [(1, 8), (9, 1)])
def test_where_no_step_would_be_taken_nothing_is_claimed(count: int, batch_size: int) -> None:
    with pytest.raises(ConfigError, match="batch norm has no variance of one image"):
        pretrain_(network(), *images(count), PretrainConfig(batch_size=batch_size), seed=1)


def test_a_loss_that_is_no_number_ends_it() -> None:
    with pytest.raises(
        ConfigError, match=r"pretrain\.lr: 1000000000000.0 is too large: the loss of epoch 1 is"
    ):
        pretrain_(network(), *images(48), PretrainConfig(lr=1e12, batch_size=8), seed=1)


HEAD = PretrainConfig(head_epochs=12, lr=0.5, batch_size=8)


def test_a_head_learns_alone_and_nothing_else_moves() -> None:
    model, told = network(), []
    before = copy.deepcopy(model.state_dict())
    last = pretrain_head_(model, *images(48), HEAD, seed=1, report=lambda *line: told.append(line))
    assert [epoch for epoch, _ in told] == list(range(1, 13))
    assert last == told[-1][1] < 0.8 * told[0][1]
    moved = [name for name, tensor in model.state_dict().items() if not torch.equal(before[name], tensor)]
    assert moved == ["5.weight", "5.bias"]
    assert not model.training


def test_a_head_has_the_bits_of_training_behind_the_whole_network() -> None:
    ours, plain = network(), network()
    x, y = images(8)
    pretrain_head_(ours, x, y, PretrainConfig(head_epochs=1, lr=0.1, batch_size=8), seed=1)
    loss = nn.functional.cross_entropy(plain(x), y)
    head = plain[5]
    grads = torch.autograd.grad(loss, list(head.parameters()))
    norm = torch.stack([g.norm() for g in grads]).norm()
    for parameter, grad in zip(head.parameters(), grads, strict=True):
        moved = parameter - 0.1 * (grad * min(1.0, 2.0 / float(norm)) + 1e-4 * parameter)
        torch.testing.assert_close(ours[5].get_parameter("bias" if grad.dim() == 1 else "weight"), moved)


def test_a_head_trains_on_a_last_batch_of_one() -> None:
    alone, many = network(), network()
    x, y = images(9)
    settings = PretrainConfig(head_epochs=1, lr=0.1, batch_size=8)
    pretrain_head_(alone, x, y, settings, seed=1)
    pretrain_head_(many, x[:8], y[:8], settings, seed=1)
    assert not torch.equal(alone[5].bias, many[5].bias)


def test_a_rate_too_large_for_the_head_is_one_line() -> None:
    with pytest.raises(ConfigError, match=r"pretrain\.lr: 1000000000000.0 is too large: the loss of epoch"):
        pretrain_head_(network(), *images(16), PretrainConfig(head_epochs=9, lr=1e12, batch_size=8), seed=1)
