"""What several devices of equal plans would gain as one batched program, measured before one is built.

    python experiments/benchmarks/devices_beside.py shared RUN [--devices 2 4 8]   # a limit, for the plans of a run
    python experiments/benchmarks/devices_beside.py own [--devices 2 4 8]   # each with its own weights, plain

`shared` times the steps of a run's plans on K batches at once, as one device with K times the batch. Its micro-batches,
factors and masks are those of K devices, but all have the same weights, so that dense products are fewer and larger
than K devices' could be. A program for K devices is hardly quicker than that. `own` trains the last four convolutions
and the head of MCUNet, with frozen norms folded and nothing compressed, for K devices with weights of their own: one
after another, and as one program in three ways. Times are processor time of one thread, medians of interleaved steps.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.func import functional_call, grad, vmap
from torch.nn import functional as F

from fed_asi import models
from fed_asi.compression.compress import compress_
from fed_asi.compression.cut import cut, folded
from fed_asi.devices.calibration import plans_for
from fed_asi.fleets import fleet
from fed_asi.training.sgd import Sgd
from fed_asi.training.steps import Stepper, training_mode_
from fed_asi.units import format_bytes
from fed_asi.workplace.features_again import Sources
from fed_asi.workplace.opening import open_workplace

BATCH, LR, LAYERS, RESOLUTION = 32, 1e-6, 4, 128
Step = Callable[[], object]
Steps = dict[tuple[str, int], Step]  # by row and number of devices


def shared(given: argparse.Namespace) -> Steps:
    """Return the steps of a run's plans, with 1, ... K batches at once."""
    place = open_workplace(given.run / "workplace", opened=Sources.open_rows)
    largest = max(range(len(place.shards)), key=lambda one: len(place.shard(one).train))
    rows, steps = place.rows(place.shard(largest).train), Steps()
    for device in {one.group: one for one in fleet.build(place.config).devices}.values():
        tail, resources = copy.deepcopy(place.tail), device.resources
        plan = plans_for(place, device.partition_id).first(resources)
        compress_(tail, plan, seed=0, micro_batch=plan.micro_batch)
        training_mode_(tail)
        optimizer = Sgd(tail.named_parameters(), weight_decay=1e-4, clip_norm=2.0)
        stepper = Stepper(tail, optimizer, micro_batch=plan.micro_batch, budget_bytes=resources.budget_bytes)
        size = resources.budget_bytes
        label = "unlimited" if size is None else format_bytes(size)
        for count in (1, *given.devices):
            steps[label, count] = partial(
                stepper.step_, *place.batch(rows[: count * resources.batch_size]), LR
            )
    return steps


def own(given: argparse.Namespace) -> Steps:
    """Return the steps of 1, ... K devices with weights of their own, one after another and in three ways at once."""
    model = models.build("mcunet-in1", 10, None, RESOLUTION, seed=0).eval()
    names = [name for name, module in model.named_modules() if isinstance(module, nn.Conv2d)][-LAYERS:]
    names.append(models.head_name(model))
    trunk, tail = cut(model, names, torch.zeros(1, 3, RESOLUTION, RESOLUTION))
    shape = trunk(torch.zeros(1, 3, RESOLUTION, RESOLUTION)).shape[1:]
    tail = folded(tail)
    for name, parameter in tail.named_parameters():
        parameter.requires_grad_(name.rpartition(".")[0] in names)
    steps = Steps()
    for count in (1, *given.devices):
        devices = [_moved(tail) for _ in range(count)]
        x, y = torch.randn(count, BATCH, *shape), torch.randint(0, 10, (count, BATCH))
        x = x.flatten(0, 1).contiguous(memory_format=torch.channels_last).unflatten(0, (count, BATCH))
        steps["one after another", count] = partial(_in_turns, devices, x, y)
        for name, network in {
            "grouped convolutions": Grouped(devices),
            "batched products": Products(devices),
        }.items():
            beside = x.transpose(0, 1).flatten(1, 2).contiguous(memory_format=torch.channels_last)
            steps[name, count] = partial(network.step_, beside, y)
        steps["torch.func.vmap", count] = _vmapped(devices, x, y)
    _check(steps, given.devices[-1])
    return steps


def _moved(tail: nn.Module) -> nn.Module:
    """Return a copy with weights of its own."""
    found = copy.deepcopy(tail)
    with torch.no_grad():
        for parameter in found.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=1e-3)
    return found


def _descend_(parameters: Sequence[Tensor]) -> None:
    with torch.no_grad():
        for parameter in parameters:
            if parameter.grad is not None:
                parameter.add_(parameter.grad, alpha=-LR)
                parameter.grad = None


def _in_turns(devices: Sequence[nn.Module], x: Tensor, y: Tensor) -> Tensor:
    losses = []
    for device, images, labels in zip(devices, x, y, strict=True):
        loss = F.cross_entropy(device(images), labels)
        loss.backward()  # type: ignore[no-untyped-call]
        _descend_(list(device.parameters()))
        losses.append(loss.detach())
    return torch.stack(losses)


class Grouped(fx.Interpreter):
    """K tails as one: channels lie beside each other, and every convolution has K times as many groups."""

    def __init__(self, devices: Sequence[nn.Module]) -> None:
        super().__init__(devices[0])  # type: ignore[arg-type]
        self.count = len(devices)
        every = [dict(device.named_parameters()) for device in devices]
        self.stacked = {
            name: torch.cat([one[name].detach() for one in every]).requires_grad_(
                every[0][name].requires_grad
            )
            for name in every[0]
        }

    def step_(self, x: Tensor, y: Tensor) -> Tensor:
        """Return each device's loss after one step. x: (N, K C, H, W). y: (K, N)."""
        logits = self.run(x)  # (K, N, classes)
        losses = F.cross_entropy(logits.flatten(0, 1), y.flatten(), reduction="none").view_as(y).mean(1)
        losses.sum().backward()  # type: ignore[no-untyped-call]
        _descend_(list(self.stacked.values()))
        return losses.detach()

    def call_module(self, target: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        """Compute a module for all devices."""
        module, x = self.fetch_attr(target), args[0]
        if isinstance(module, nn.Conv2d):
            return self.convolved(target, module, x)
        if isinstance(module, nn.Linear):
            weight = self.stacked[f"{target}.weight"].view(self.count, module.out_features, -1)
            bias = self.stacked[f"{target}.bias"].view(self.count, 1, -1)
            return torch.baddbmm(bias, x.view(len(x), self.count, -1).transpose(0, 1), weight.mT)
        return super().call_module(target, args, dict(kwargs))

    def convolved(self, name: str, module: nn.Conv2d, x: Tensor) -> Tensor:
        """Return a convolution of all devices: (N, K C', H, W)."""
        weight, bias = self.stacked[f"{name}.weight"], self.stacked.get(f"{name}.bias")
        rest = (module.stride, module.padding, module.dilation, self.count * module.groups)
        return F.conv2d(x, weight, bias, *rest)  # type: ignore[arg-type]


class Products(Grouped):
    """The same, but dense pointwise convolutions are batched products, whose outputs are copied into place."""

    def convolved(self, name: str, module: nn.Conv2d, x: Tensor) -> Tensor:
        """Return a convolution of all devices: (N, K C', H, W)."""
        if module.groups > 1 or module.kernel_size != (1, 1) or module.stride != (1, 1):
            return super().convolved(name, module, x)
        last = x.movedim(1, -1)
        rows = last.reshape(-1, self.count, module.in_channels).transpose(0, 1)
        weight = self.stacked[f"{name}.weight"].view(self.count, module.out_channels, -1)
        bias = self.stacked[f"{name}.bias"].view(self.count, 1, -1)
        found = torch.baddbmm(bias, rows, weight.mT).transpose(0, 1)
        return found.reshape(*last.shape[:-1], -1).movedim(-1, 1)


def _vmapped(devices: Sequence[nn.Module], x: Tensor, y: Tensor) -> Step:
    """Return a step by torch's own way of batching over models."""
    named = [dict(device.named_parameters()) for device in devices]
    stacked = {name: torch.stack([one[name].detach() for one in named]) for name in named[0]}
    trained = {name: t for name, t in stacked.items() if named[0][name].requires_grad}
    frozen = {name: t for name, t in stacked.items() if name not in trained}

    def loss_of(
        own: dict[str, Tensor], fixed: dict[str, Tensor], images: Tensor, labels: Tensor
    ) -> tuple[Tensor, Tensor]:
        loss = F.cross_entropy(functional_call(devices[0], {**own, **fixed}, (images,)), labels)
        return loss, loss.detach()

    gradients = vmap(grad(loss_of, has_aux=True))

    def step() -> Tensor:
        found, losses = gradients(trained, frozen, x, y)
        with torch.no_grad():
            for name, gradient in found.items():
                trained[name].add_(gradient, alpha=-LR)
        return torch.as_tensor(losses)

    return step


def _check(steps: Steps, count: int) -> None:
    """Raise SystemExit where a way computes other losses than one device after another."""
    expected = torch.as_tensor(steps["one after another", count]())
    for (name, devices), step in steps.items():
        if devices == count and not torch.allclose(torch.as_tensor(step()), expected, rtol=1e-3):
            raise SystemExit(f"{name}: other losses than one after another")


def table(what: str, steps: Steps, repeats: int) -> list[str]:
    """Return rows of milliseconds a device, and how many times as quick as one alone."""
    found = medians(steps, repeats)
    counts = sorted({count for _, count in steps if count > 1})
    head = [what, "alone, ms", *(f"{count} at once, ms a device" for count in counts)]
    rows = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for name in dict.fromkeys(name for name, _ in steps):
        alone = found[name, 1]
        each = [found[name, count] / count for count in counts]
        cells = [f"{one:.1f} ({alone / one:.2f} times as quick)" for one in each]
        rows.append(f"| {' | '.join([name, f'{alone:.1f}', *cells])} |")
    return rows


def medians(steps: Steps, repeats: int) -> dict[tuple[str, int], float]:
    """Return the median milliseconds of each step, interleaved."""
    taken: dict[tuple[str, int], list[float]] = {name: [] for name in steps}
    for step in steps.values():
        step()
        step()
    for _ in range(repeats):
        for name, step in steps.items():
            began = time.thread_time()
            step()
            taken[name].append((time.thread_time() - began) * 1e3)
    return {name: statistics.median(values) for name, values in taken.items()}


def main() -> None:
    """Print one of the tables as Markdown."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("weights", choices=("shared", "own"))
    parser.add_argument("run", type=Path, nargs="?", help="whose plans: a finished run; for `shared`")
    parser.add_argument("--devices", type=int, nargs="+", default=[2, 4, 8])
    parser.add_argument("--repeats", type=int, default=15)
    given = parser.parse_args()
    if given.weights == "shared" and given.run is None:
        parser.error("shared needs a finished run")
    torch.set_num_threads(1)
    what, steps = ("way", own(given)) if given.weights == "own" else ("plan", shared(given))
    print("\n".join(table(what, steps, given.repeats)))


if __name__ == "__main__":
    main()
