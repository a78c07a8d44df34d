"""Measured seconds of real training steps on this machine, with their counted work, from which rates are fitted.

A step is forward, loss, backward and optimizer step on the last four convolutions and the head. It is measured in
processor time of one thread, as the minimum of several repeats, so that other load on the machine matters little.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from fed_asi import models, seeds
from fed_asi.compression.compress import compress_, uncompress_
from fed_asi.compression.cut import cut, folded
from fed_asi.compression.gradient_checkpointing import Checkpointed
from fed_asi.compression.graph import analyse
from fed_asi.machine import threads
from fed_asi.memory.work import Network, Work, network_of, total
from fed_asi.methods import Method, Vanilla
from fed_asi.training.sgd import Sgd
from fed_asi.training.steps import training_mode_

CLASSES, LAYERS, RESOLUTION = 10, 4, 128
CHECKPOINTING = "checkpointing"  # a form of the whole network, not of one layer
_REPEATS, _LEAST_SECONDS, _MOST_REPEATS = 3, 0.25, 40
Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Measured:
    """One kind of step: whose, in which form, on how many images; its work and its seconds."""

    network: str
    form: str
    batch: int
    work: Work
    seconds: float


def measure(
    networks: Sequence[str],
    forms: Sequence[str],
    batches: Sequence[int],
    progress: Progress = lambda _text: None,
) -> Iterator[Measured]:
    """Yield each network's steps in each form at each batch, measured with one thread."""
    with threads(1):
        for name in networks:
            progress(name)
            subject = _Subject.of(name)
            for form in forms:
                for batch in batches:
                    yield subject.measured(form, batch)


@dataclass(frozen=True, slots=True)
class _Subject:
    name: str
    trunk: fx.GraphModule
    tail: fx.GraphModule
    sizes: Network
    body: tuple[str, ...]
    head: str

    @classmethod
    def of(cls, name: str) -> _Subject:
        model = models.build(name, CLASSES, None, RESOLUTION, seed=0).eval()
        body = [n for n, module in model.named_modules() if isinstance(module, nn.Conv2d)][-LAYERS:]
        head = models.head_name(model)
        image = torch.zeros(1, 3, RESOLUTION, RESOLUTION)
        trunk, tail = cut(model, [*body, head], image)
        trunk = folded(trunk)
        with torch.no_grad():
            sizes = network_of(tail, trunk(image), analyse(tail).pooled)
        return cls(name, trunk, tail, sizes, tuple(body), head)

    def measured(self, form: str, batch: int) -> Measured:
        """Return the least seconds of a step, and its work."""
        generator = seeds.generator(0, "measuring", batch)
        with torch.no_grad():
            images = torch.randn(batch, 3, RESOLUTION, RESOLUTION, generator=generator)
            x = self.trunk(images).contiguous(memory_format=torch.channels_last)
        y = torch.randint(0, CLASSES, (batch,), generator=generator)
        methods = self.methods(form, batch)
        running = (
            Checkpointed.of(self.tail, [*self.body, self.head], x) if form == CHECKPOINTING else self.tail
        )
        try:
            compress_(self.tail, methods, seed=0)
            training_mode_(running)
            seconds = least(_step_of(running, self.tail, x, y))
        finally:
            uncompress_(self.tail)
        step = self.sizes.step(batch, methods, twice=form == CHECKPOINTING)
        return Measured(self.name, form, batch, total([step, self.sizes.update(methods)]), seconds)

    def methods(self, form: str, batch: int) -> dict[str, Method]:
        """Return the form for each layer; ranks above a mode are the mode's."""
        asked = Method.parse("vanilla" if form == CHECKPOINTING else form)
        dims = {layer.name: layer.size.dims[1:] for layer in self.sizes.layers}
        found = {name: _fitted(asked, (batch, *dims[name])) for name in self.body}
        return {**found, self.head: Vanilla()}


def _fitted(method: Method, dims: Sequence[int]) -> Method:
    ranks = method.mode_ranks
    if not ranks:
        return method
    return replace(method, ranks=tuple(min(r, d) for r, d in zip(ranks, dims, strict=True)))  # type: ignore[call-arg]


def _step_of(running: nn.Module, tail: nn.Module, x: Tensor, y: Tensor) -> Callable[[], None]:
    optimizer = Sgd(tail.named_parameters(), weight_decay=1e-4, clip_norm=2.0)

    def step() -> None:
        torch.autograd.backward(F.cross_entropy(running(x), y))
        optimizer.step_(1e-4)

    return step


def least(work: Callable[[], None]) -> float:
    """Return the processor seconds of this thread that the work takes: the minimum of several repeats."""
    work()  # the first call allocates buffers and selects kernels
    begun, found, repeats = time.thread_time(), float("inf"), 0
    while repeats < _REPEATS or (time.thread_time() - begun < _LEAST_SECONDS and repeats < _MOST_REPEATS):
        before = time.thread_time()
        work()
        found = min(found, time.thread_time() - before)
        repeats += 1
    return found
