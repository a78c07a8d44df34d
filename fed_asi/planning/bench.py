"""The bench: a network whose steps are traced for planning, to measure a plan's memory and each layer's share of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from fed_asi.compression.compress import compress_known_
from fed_asi.compression.graph import analyse
from fed_asi.compression.tune import trained_by
from fed_asi.layers.compressed import weight_kind_of
from fed_asi.layers.copying import copied
from fed_asi.memory.arena.planned import Arena, arena, inference_arena, laid_out
from fed_asi.memory.arena.shares import Shares
from fed_asi.memory.arena.split import shares
from fed_asi.memory.arena.step import Gradients, MakeMover, MakeOptimizer, record_step
from fed_asi.memory.device import DeviceMemory, in_all
from fed_asi.memory.stored import (
    Format,
    TrainedFormat,
    activation_bytes,
    rest_bytes,
    spared_bytes,
    stored_bytes,
)
from fed_asi.methods import Method
from fed_asi.planning.plan import Plan, Update


@dataclass(frozen=True, slots=True)
class Rule:
    """How a step treats its gradients, and what updates the weights; see `fed_asi.arena`."""

    gradients: Gradients
    optimizer: MakeOptimizer | None = None
    mover: MakeMover | None = None
    momentum: bool = False


RuleAt = Callable[[int], Rule]


@dataclass(frozen=True, slots=True)
class Measured:
    """The memory of a traced plan, and each layer's share of it."""

    memory: DeviceMemory
    shares: Shares


class Bench:
    """A network on which steps are traced, in the mode in which it trains, with inputs in channels-last format.

    The given modules are never changed.

    model: at least the trained part. trunk: the frozen part before it. x, y: as many images as the largest micro-batch
    has; they are inputs of the trunk or, without one, of the model. rule: of every step, or a function of the
    micro-batch where it depends on that. copies: of trained weights, held for a strategy and a codec. storage: the
    format in flash of what is only read; the given modules are in float32. trained_as: the format in RAM of what
    is trained. update: the fleet file's name for the rule.
    """

    def __init__(
        self,
        model: nn.Module,
        x: Tensor,
        y: Tensor,
        rule: Rule | RuleAt,
        *,
        trunk: nn.Module | None = None,
        copies: int = 0,
        storage: Format = "float32",
        trained_as: TrainedFormat = "float32",
        update: Update | None = None,
    ) -> None:
        self.copies, self.storage, self.trained_as, self.update = copies, storage, trained_as, update
        self._rule = rule
        self._model, self._y = copied(model), y
        self._graph = analyse(self._model)
        self._modules = dict(self._model.named_modules())
        self._before: Arena | None = None
        self._read: int | None = None
        if trunk is not None:
            self._before = inference_arena(trunk, x[:1], storage=storage)
            self._read = stored_bytes((*trunk.parameters(), *trunk.buffers()), storage)
        self._read_bytes: dict[tuple[str, Method], int] = {}
        self._trunk, self._images = trunk, x
        self._x = self._features(1)

    def rule(self, micro_batch: int) -> Rule:
        """Return the rule of a step with micro-batches of this size."""
        return self._rule if isinstance(self._rule, Rule) else self._rule(micro_batch)

    def trunk_bytes(self, micro_batch: int) -> int:
        """Return the RAM of the trunk's phase, without static bytes: its arena and the features that wait."""
        return 0 if self._before is None else self._before.bytes + self._waiting(micro_batch)

    def count(self, model: nn.Module, x: Tensor, y: Tensor) -> DeviceMemory:
        """Return the memory that one micro-batch of an already compressed model needs.

        model: the bench's network, compressed; it is only read. x: (b, ...), its input: features of the trunk where
        there is one.
        """
        rule = self.rule(len(x))
        step = arena(
            model,
            _laid_out(x),
            y,
            gradients=rule.gradients,
            optimizer=rule.optimizer,
            mover=rule.mover,
        )
        return self._in_all(step, model, len(x))

    def read_bytes(self, name: str, method: Method) -> int:
        """Return the flash bytes that a layer and its batch norm only read under a method."""
        key = name, method
        if key not in self._read_bytes:
            self._read_bytes[key] = self._only_read(*key)
        return self._read_bytes[key]

    def _only_read(self, name: str, method: Method) -> int:
        modules = self._modules
        layer, norm = modules[name], self._graph.norms.get(name)
        owners = [layer] if norm is None else [layer, modules[norm]]
        trained = {id(p) for p in trained_by(name, modules, method, self._graph)}
        read = [p for owner in owners for p in owner.parameters(recurse=False) if id(p) not in trained]
        found = stored_bytes(read, self.storage)
        kind, weight = weight_kind_of(layer), layer._parameters.get("weight")
        if method.picks_channels and kind is not None and weight is not None:
            some = kind.slice_of(layer, torch.arange(method.count))  # type: ignore[attr-defined]
            found += rest_bytes(weight, some, self.storage)
        return found

    def measure(self, plan: Plan, names: Sequence[str]) -> Measured:
        """Return the memory of a plan, from a trace of its step. names: the profile's layers, in forward order."""
        compress_known_(self._model, self._graph, plan)
        b = plan.micro_batch
        rule = self.rule(b)
        trace = record_step(
            self._model,
            self._inputs(b),
            self._y[:b],
            gradients=rule.gradients,
            optimizer=rule.optimizer,
            mover=rule.mover,
        )
        return Measured(self._in_all(laid_out(trace), self._model, b), shares(trace, names))

    def _in_all(self, step: Arena, model: nn.Module, micro_batch: int) -> DeviceMemory:
        waiting = 0 if self._before is None else self._waiting(micro_batch)
        return in_all(
            step,
            self._before,
            waiting_bytes=waiting,
            copies=self.copies,
            read_bytes=self._read,
            spared_bytes=spared_bytes(model, self.storage),
            trained_as=self.trained_as,
        )

    def _waiting(self, micro_batch: int) -> int:
        return activation_bytes(self._x[:1].nbytes * (micro_batch - 1), self.storage)

    def _inputs(self, count: int) -> Tensor:
        """Return the first `count` inputs of the model; the trunk runs only if fewer are known so far."""
        if len(self._x) < count:
            self._x = self._features(count)
        return _laid_out(self._x[:count])

    @torch.no_grad()
    def _features(self, count: int) -> Tensor:
        if self._trunk is None:
            return self._images
        found: Tensor = self._trunk(self._images[:count])
        return found


def _laid_out(x: Tensor) -> Tensor:
    """Return an input as steps are traced on it, whatever it comes from: with channels last, as a simulated step runs.

    The layout decides which copies a step makes, so a plan and the step that it allows must have the same.
    """
    return x.contiguous(memory_format=torch.channels_last) if x.dim() == 4 else x.contiguous()
