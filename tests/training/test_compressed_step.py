"""What a compressed model's step must not do: wait for the device, break a compiler, hold more memory."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from fed_asi import layers, models
from fed_asi.compression.compress import compress_
from fed_asi.compression.cut import cut
from fed_asi.compression.tune import tune_last_
from fed_asi.memory.peak import StepMeter
from fed_asi.methods import ASI, HOSVD, Method, Quantized, Vanilla
from strategies import seeded

WAITING = (
    "_local_scalar_dense",
    "nonzero",
    "is_nonzero",
    "equal",
    "masked_select",
    "unique",
    "where.default",
)


class NoWaiting(TorchDispatchMode):
    """Fail at every operation whose result, or its size, the host has to wait for."""

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        name = str(func).removeprefix("aten.")
        if name.startswith(WAITING):
            raise AssertionError(f"{func} makes the host wait for the device")
        return func(*args, **(kwargs or {}))


def blocks(method: Method, micro_batch: int | None = None) -> nn.Module:
    """An inverted residual of every sort of convolution, and a classifier, compressed."""
    torch.manual_seed(0)
    net = nn.Sequential(
        *(nn.Conv2d(3, 12, 3, padding=1), nn.BatchNorm2d(12), nn.ReLU()),
        *(nn.Conv2d(12, 12, 3, padding=1, groups=12), nn.BatchNorm2d(12), nn.ReLU6()),
        *(nn.Conv2d(12, 16, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 5)),
    )
    compress_(net.train(), method, seed=0, micro_batch=micro_batch)
    return net


def step(model: Callable[[Tensor], Tensor], x: Tensor) -> None:
    labels = torch.arange(len(x)) % 5
    nn.functional.cross_entropy(model(x), labels).backward()


@pytest.mark.parametrize("micro_batch", [None, 2])
@pytest.mark.parametrize(
    "method", [ASI((2, 3, 3, 3)), ASI((2, 3, 3, 3), warm=False), Quantized(4), Vanilla()], ids=str
)
def test_no_step_waits_for_the_device(method: Method, micro_batch: int | None) -> None:
    net, x = blocks(method, micro_batch), seeded(6, 3, 8, 8).float()
    for _ in range(2):  # the second starts from warm factors
        with NoWaiting():
            step(net, x)
            layers.commit_factors_(net)


def test_ranks_that_depend_on_the_data_do_wait() -> None:
    """HOSVD asks for its ranks: the guard sees it."""
    with pytest.raises(AssertionError, match="_local_scalar_dense"), NoWaiting():
        step(blocks(HOSVD(0.8)), seeded(2, 3, 8, 8).float())


@pytest.mark.slow  # torch's compiler takes seconds to import
@pytest.mark.computes
@pytest.mark.filterwarnings("ignore")
def test_a_compiled_model_trains_as_the_model_itself() -> None:
    """torch.compile goes round the compressed layers; gradients and warm factors are the same bits."""
    net = blocks(ASI((2, 3, 3, 3)))
    twin, x = copy.deepcopy(net), seeded(4, 3, 8, 8).float()
    compiled = torch.compile(twin, backend="eager")
    for _ in range(2):
        step(net, x)
        step(compiled, x)
        layers.commit_factors_(net)
        layers.commit_factors_(twin)
    for ours, theirs in zip(net.parameters(), twin.parameters(), strict=True):
        assert ours.grad is not None
        assert theirs.grad is not None
        assert torch.equal(ours.grad, theirs.grad)
    found, again = layers.factors(net), layers.factors(twin)
    assert found.keys() == again.keys()
    assert found
    assert all(torch.equal(a, b) for name in found for a, b in zip(found[name], again[name], strict=True))


@pytest.mark.parametrize(
    "network", ["mcunet", pytest.param("resnet18", marks=(pytest.mark.slow, pytest.mark.computes))]
)
@pytest.mark.parametrize("ranks", [(8, 8, 3, 3), (32, 32, 4, 4)])
def test_a_step_holds_at_most_one_activation_more_than_plain_at_any_time(
    network: str, ranks: tuple[int, ...]
) -> None:
    model = models.build(network, 5, weights=None).eval()
    trained, image = tune_last_(model, 2), torch.randn(2, 3, 128, 128)
    trunk, tail = cut(model, trained, image)
    with torch.no_grad():
        x = torch.randn(8, *trunk(image).shape[1:])
    ours, largest = copy.deepcopy(tail).train(), x.nbytes
    compress_(ours, ASI(ranks), seed=0)
    for module in tail.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(lambda _m, _i, z: sizes.append(z.nbytes))
    sizes: list[int] = []
    plain_peak, our_peak = peak(tail, x), peak(ours, x)
    largest = max(largest, *sizes)
    assert our_peak <= plain_peak + largest


def peak(model: nn.Module, x: Tensor) -> int:
    """Return the peak of a step after the first, in bytes."""
    step(model, x)
    layers.commit_factors_(model)
    model.zero_grad()
    with StepMeter(x.device) as meter:
        step(model, x)
    return meter.peak_bytes
