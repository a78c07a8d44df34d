"""A device's step: its micro-batches add up to the batch, and no weight moves if it exceeds its budget."""

from __future__ import annotations

import copy
import time

import pytest
import torch
from torch import Tensor, nn

from fed_asi.compression.compress import compress_
from fed_asi.errors import OverBudgetError, UnsupportedLayerError
from fed_asi.methods import ASI, Vanilla
from fed_asi.models.torchvision_shim import torchvision
from fed_asi.training.sgd import Sgd
from fed_asi.training.steps import DeadlineError, SideBySideCheck, Stepper, compare, training_mode_


def network() -> nn.Module:
    torch.manual_seed(0)
    net = nn.Sequential(
        *(nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU()),
        *(nn.Conv2d(6, 8, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4)),
    )
    return net.eval()


def batch(count: int = 10) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(count, 3, 8, 8, generator=generator), torch.arange(count) % 4


def stepper(
    micro_batch: int, *, side_by_side: bool = True, momentum: float = 0.0, **options: object
) -> Stepper:
    """Return a stepper of the network, compressed as a device's tail is."""
    tail = network().train()
    compress_(tail, Vanilla(), seed=0, micro_batch=micro_batch if side_by_side else None)
    training_mode_(tail)
    optimizer = Sgd(tail.named_parameters(), momentum=momentum)
    options = {"budget_bytes": None, **options}
    return Stepper(tail, optimizer, micro_batch=micro_batch, side_by_side=side_by_side, **options)  # type: ignore[arg-type]


def weights(model: nn.Module) -> list[Tensor]:
    return [parameter.detach().clone() for parameter in model.parameters()]


@pytest.mark.parametrize("side_by_side", [True, False])
@pytest.mark.parametrize("micro_batch", [1, 4, 10, 64])
def test_micro_batches_add_up_to_the_batch(micro_batch: int, side_by_side: bool) -> None:
    """By autograd on the plain network: the batch of 10 is no multiple of 4, and smaller than 64."""
    x, y = batch()
    one, plain = stepper(micro_batch, side_by_side=side_by_side), network()
    expected = nn.functional.cross_entropy(plain(x), y)
    expected.backward()
    loss = one.accumulate(x, y, side_by_side)
    assert float(loss) == pytest.approx(expected.item(), rel=1e-5)
    for ours, theirs in zip(one.tail.parameters(), plain.parameters(), strict=True):
        assert ours.grad is not None
        assert theirs.grad is not None
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-4, atol=1e-6)


def test_a_step_moves_the_weights_and_counts() -> None:
    one, (x, y) = stepper(4), batch()
    before = weights(one.tail)
    loss = one.step_(x, y, 0.1)
    assert not all(torch.equal(a, b) for a, b in zip(before, one.tail.parameters(), strict=True))
    assert all(parameter.grad is None for parameter in one.tail.parameters())
    assert (one.largest.steps, one.largest.loss) == (1, loss)
    assert one.step_(x, y, 0.1) < loss
    assert one.largest.steps == 2


def test_smaller_micro_batches_keep_less() -> None:
    x, y = batch(8)
    kept = []
    for micro_batch in (1, 2, 8):
        one = stepper(micro_batch)
        one.accumulate(x, y, True)
        kept.append(one.largest.saved_bytes)
    assert kept[0] < kept[1] < kept[2]
    assert kept[1] == pytest.approx(2 * kept[0], rel=0.05)


@pytest.mark.parametrize("update", ["step", "micro-batch"])
def test_a_step_over_its_budget_moves_nothing(update: str) -> None:
    x, y = batch()
    free = stepper(4, update=update)
    free.step_(x, y, 0.0)
    needed = free.largest.saved_bytes
    stepper(4, update=update, budget_bytes=needed).step_(x, y, 0.1)
    tight = stepper(4, update=update, budget_bytes=needed - 1)
    before = weights(tight.tail)
    with pytest.raises(
        OverBudgetError, match=r"out of memory: the step keeps .* the budget is .*largest: 3 6"
    ) as raised:
        tight.step_(x, y, 0.1)
    assert raised.value.measured_bytes == needed
    assert all(torch.equal(a, b) for a, b in zip(before, tight.tail.parameters(), strict=True))
    assert tight.largest.steps == 0


@pytest.mark.parametrize(("momentum", "copies"), [(0.0, 1), (0.9, 2)])
def test_a_budget_may_cover_gradients_and_momentum_too(momentum: float, copies: int) -> None:
    x, y = batch()
    one = stepper(4, momentum=momentum)
    one.step_(x, y, 0.0)
    trained = sum(parameter.nbytes for parameter in one.tail.parameters())
    needed = one.largest.saved_bytes + copies * trained
    stepper(4, momentum=momentum, covers="training", budget_bytes=needed).step_(x, y, 0.1)
    with pytest.raises(OverBudgetError):
        stepper(4, momentum=momentum, covers="training", budget_bytes=needed - 1).step_(x, y, 0.1)


def test_a_budget_may_cover_the_papers_count_alone() -> None:
    x, y = batch()
    published = 4 * (3 * 8 * 8 + 6 * 8 * 8) * 4  # inputs of the two convolutions, a micro-batch of 4
    stepper(4, covers="published", budget_bytes=published).step_(x, y, 0.1)
    with pytest.raises(OverBudgetError):
        stepper(4, covers="published", budget_bytes=published - 1).step_(x, y, 0.1)


def test_weights_that_move_at_each_micro_batch_need_no_accumulators() -> None:
    x, y = batch(8)
    every, whole = stepper(4, update="micro-batch"), stepper(4)
    assert every.accumulator_bytes == 0
    assert whole.accumulator_bytes == sum(parameter.nbytes for parameter in whole.tail.parameters())
    by_hand = copy.deepcopy(every.tail)
    optimizer = Sgd(by_hand.named_parameters())
    for rows in (slice(0, 4), slice(4, 8)):
        (nn.functional.cross_entropy(by_hand(x[rows]), y[rows])).backward()
        optimizer.step_(0.05)
    every.step_(x, y, 0.1)
    for ours, theirs in zip(every.tail.parameters(), by_hand.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-7)


def test_past_its_deadline_a_device_stops_before_the_next_step() -> None:
    one, (x, y) = stepper(4, deadline=time.monotonic() + 1000), batch()
    one.step_(x, y, 0.1)
    one.deadline = time.monotonic() - 1
    before = weights(one.tail)
    with pytest.raises(DeadlineError, match="past its deadline after 1 steps"):
        one.step_(x, y, 0.1)
    assert all(torch.equal(a, b) for a, b in zip(before, one.tail.parameters(), strict=True))


@pytest.mark.parametrize("update", ["step", "micro-batch", "layer"])
def test_a_trained_layer_without_a_gradient_is_an_error(update: str) -> None:
    class Skips(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used, self.unused = nn.Linear(4, 4), nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.used(x)

    tail = Skips().train()
    compress_(tail, Vanilla(), seed=0)
    one = Stepper(tail, Sgd(tail.named_parameters()), micro_batch=2, budget_bytes=None, update=update)
    with pytest.raises(UnsupportedLayerError, match="unused"):
        one.step_(torch.randn(2, 4), torch.tensor([0, 1]), 0.1)


def test_what_stands_for_a_device_is_held_against_one_micro_batch_after_another() -> None:
    tail = network().train()
    compress_(tail, ASI((2, 3, 3, 3)), seed=0, micro_batch=2)
    training_mode_(tail)
    one = Stepper(tail, Sgd(tail.named_parameters()), micro_batch=2, budget_bytes=None)
    before, (x, y) = weights(tail), batch(8)
    found = compare(one, x, y)
    assert found.agrees
    assert found.relative_difference < 1e-4
    assert found.sequential_bytes > 0
    assert all(torch.equal(a, b) for a, b in zip(before, tail.parameters(), strict=True))
    assert (one.largest.steps, one.largest.saved_bytes) == (0, 0)


@pytest.mark.parametrize(
    ("found", "agrees"),
    [
        (SideBySideCheck(1000, 1000, 0.0), True),
        (SideBySideCheck(1016, 1000, 0.0), True),
        (SideBySideCheck(1017, 1000, 0.0), False),
        (SideBySideCheck(1000, 1000, 0.02), False),
    ],
)
def test_a_few_scalars_and_rounding_are_all_that_may_differ(found: SideBySideCheck, agrees: bool) -> None:
    assert found.agrees is agrees


def test_local_training_has_no_randomness_and_fixed_statistics() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Dropout2d(), nn.AlphaDropout(), nn.ReLU())
    net.append(torchvision.ops.StochasticDepth(0.5, "row"))
    training_mode_(net)
    assert [module.training for module in net] == [True, False, False, False, True, False]
    before = net[1].running_mean.clone()
    x = torch.randn(4, 3, 2, 2)
    assert torch.equal(net(x), net(x))
    assert torch.equal(net[1].running_mean, before)


def test_pools_whose_kernel_is_one_number_are_no_convolutions() -> None:
    net = nn.Sequential(
        nn.Conv2d(3, 6, 3), nn.MaxPool2d(2), nn.AvgPool2d(3), nn.Flatten(), nn.Linear(6, 4)
    ).train()
    compress_(net, Vanilla(), seed=0)
    one = Stepper(net, Sgd(net.named_parameters()), micro_batch=10, budget_bytes=None)
    before = weights(net)
    one.step_(*batch(), 0.1)
    assert not any(torch.equal(was, now) for was, now in zip(before, weights(net), strict=True))
