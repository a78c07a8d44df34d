"""One training step or inference, run under a recorder: the role of every storage, and what stays alive to the end."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from typing import Literal, Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fed_asi import layers
from fed_asi.errors import ConfigError, FedAsiError, first_line
from fed_asi.gpus import CPU
from fed_asi.layers.copying import copied
from fed_asi.memory.arena.recorder import Recorder
from fed_asi.memory.arena.trace import Trace
from fed_asi.memory.holders import Keepers, static_tensors

# What happens to gradients. held: all stay until the update at the end. accumulated: each is added to an existing sum,
# which is static memory, and freed. applied: each updates its weight at once, and is freed.
Gradients = Literal["held", "accumulated", "applied"]
Loss = Callable[[Tensor, Tensor], Tensor]
Named = Sequence[tuple[str, nn.Parameter]]
RATE = 1e-3  # affects no byte


class Optimizer(Protocol):
    """Updates all parameters that have a gradient, and drops the gradients, as `fed_asi.training.sgd.Sgd` does."""

    def step_(self, lr: float) -> None:
        """Update the parameters."""


@runtime_checkable
class PartsHolder(Protocol):
    """An optimizer that keeps gradients of weights that train in part itself, in the size of the part.

    `fed_asi.training.at_once.SgdWithParts` is one.
    """

    def join_(self, model: nn.Module) -> None:
        """Serve a model from now on, whose parameters are the optimizer's."""

    def begin_(self, *, accumulated: bool) -> None:
        """Drop what is held; accumulated: hold zeros instead, to which the next step adds."""

    def taking(self) -> AbstractContextManager[None]:
        """Take the gradients of every backward pass inside the block; its forward pass must be inside, too."""

    def held(self) -> dict[str, Tensor]:
        """Return the gradients that are held, by the name of the parameter."""


MakeOptimizer = Callable[[Named], Optimizer]


class Mover(Protocol):
    """Updates weights during a backward pass, as `fed_asi.training.at_once.AtOnce` does."""

    def moving(self, lr: float) -> AbstractContextManager[None]:
        """Update weights in every backward pass inside the block; its forward pass must be inside too."""


MakeMover = Callable[[nn.Module], Mover]


@dataclass(frozen=True, slots=True)
class Descent:
    """Plain gradient descent."""

    parameters: Named

    def step_(self, lr: float) -> None:
        """Move every parameter against its gradient, and drop the gradients."""
        with torch.no_grad():
            for _, parameter in self.parameters:
                if parameter.grad is not None:
                    parameter.add_(parameter.grad, alpha=-lr)
                parameter.grad = None


def record_step(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    gradients: Gradients = "held",
    optimizer: MakeOptimizer | None = None,
    mover: MakeMover | None = None,
    loss: Loss = F.cross_entropy,
    with_values: bool = False,
) -> Trace:
    """Return the trace of a training step on one micro-batch, on CPU; the model is only read.

    model: plain or compressed, in the mode it trains in. x: (b, ...), y: (b,). optimizer: makes the optimizer that
    updates the weights at the end of the step or, with gradients "applied", each weight as soon as its gradient is
    computed. None: no update, or with "applied" plain gradient descent. mover: with "applied", makes the object that
    updates weights where layers compute their gradients, in place of an optimizer. The second step is recorded, so that
    momentum and warm factors exist. with_values: also keep what `replay` needs, which includes a copy of all weights.
    Raises ConfigError where nothing is trained, the model cannot take x, x is more than a micro-batch, or a mover comes
    with an optimizer or with gradients that are not "applied".
    """
    _check_one_micro_batch(model, len(x))
    if mover is not None and (gradients != "applied" or optimizer is not None):
        raise ConfigError(
            'a mover applies gradients itself: it goes with gradients="applied" and without an optimizer'
        )
    model = _here(model)
    step = _Step(model, x.detach().cpu().clone(), y.detach().cpu().clone(), gradients, optimizer, mover, loss)
    unsized = [name for name, _, state in layers.compressed_layers(model) if _sizes_follow_data(state)]
    step.prepare()
    _attempt(step.run, model, x)
    layers.commit_factors_(model)
    step.prepare()
    recorder = Recorder(model, with_values=with_values)
    step.declare(recorder)
    recorder.trace.reads += unsized
    with recorder:
        step.run(recorder)
    return step.finished(recorder)


def _here(model: nn.Module) -> nn.Module:
    """Return a copy of a model on the CPU, with what its compressed layers keep, which nn.Module.cpu leaves."""
    here = copied(model).cpu()
    for _, _, state in layers.compressed_layers(here):
        layers.go_along_(state, CPU)
    return here


def _check_one_micro_batch(model: nn.Module, images: int) -> None:
    for name, _, state in layers.compressed_layers(model):
        if state.micro_batch is not None and images > state.micro_batch:
            raise ConfigError(
                f"{name} takes micro-batches of {state.micro_batch} side by side, which no device does, and x has "
                f"{images}: plan the arena of one micro-batch, x[:{state.micro_batch}]"
            )


def _sizes_follow_data(state: layers.LayerState) -> bool:
    """Return whether a layer's sizes depend on the data, be it of the first batch or of every batch."""
    return not state.method.sized and state.factors is None


@dataclass(slots=True)
class _Step:
    """A step that can be run several times. results: what the last run gave, by name."""

    model: nn.Module
    x: Tensor
    y: Tensor
    gradients: Gradients
    optimizer: MakeOptimizer | None
    mover: MakeMover | None
    loss: Loss
    named: Named = ()
    whole: Optimizer | None = None
    holder: PartsHolder | None = None  # `whole`, if it is one
    within: Mover | None = None
    results: dict[str, Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.named = [(name, p) for name, p in self.model.named_parameters() if p.requires_grad]
        if not self.named:
            raise ConfigError(
                "nothing of the model is trained, so it has no training step; use tune_last_ first"
            )
        if self.mover is not None:
            self.within = self.mover(self.model)
        elif self.gradients == "applied":
            for name, parameter in self.named:
                one = (self.optimizer or Descent)([(name, parameter)])
                parameter.register_post_accumulate_grad_hook(partial(_move, one))  # type: ignore[no-untyped-call]
        elif self.optimizer is not None:
            self.whole = self.optimizer(self.named)
        if isinstance(self.whole, PartsHolder):
            self.holder = self.whole
            self.holder.join_(self.model)

    def prepare(self) -> None:
        """Drop the gradients; if they are accumulated, set them to zero instead."""
        accumulated = self.gradients == "accumulated"
        if self.holder is not None:
            self.holder.begin_(accumulated=accumulated)
        apart = {} if self.holder is None else self.holder.held()
        for name, parameter in self.named:
            parameter.grad = torch.zeros_like(parameter) if accumulated and name not in apart else None

    def _gradients(self) -> dict[str, Tensor]:
        """Return all gradients there are, by parameter, those that the optimizer holds itself included."""
        found = {name: p.grad for name, p in self.named if p.grad is not None}
        return found if self.holder is None else found | self.holder.held()

    def _taking(self) -> AbstractContextManager[None]:
        if self.within is not None:
            return self.within.moving(RATE)
        return nullcontext() if self.holder is None else self.holder.taking()

    def run(self, recorder: Recorder | None = None) -> None:
        """Run forward, loss, backward and update."""
        with self._taking():
            loss = self.loss(self.model(self.x), self.y)
            if recorder is not None:
                recorder.forward_is_over(loss)
            torch.autograd.backward(loss)
        self.results = {"loss": loss.detach()}
        if self.gradients == "accumulated" or self.whole is None:
            self.results |= {f"gradient of {name}": one for name, one in self._gradients().items()}
        if recorder is not None:
            recorder.where = "(update)"
        if self.whole is not None:
            self.whole.step_(RATE)
        if self.whole is not None or self.gradients == "applied":
            self.results |= {name: p.detach() for name, p in self.named}

    def declare(self, recorder: Recorder) -> None:
        """Declare to the recorder what exists before the step."""
        modules = list(self.model.named_modules())
        _declare_weights(recorder, self.model)
        for name, module in modules:
            for tensor in static_tensors(module):
                recorder.declare(tensor, "mean", f"mean of {name}")
        for name, tensor in Keepers(modules).tensors(side_by_side=False):
            recorder.declare(tensor, "factors", f"factors of {name}")
        for name, gradient in self._gradients().items():
            recorder.declare(gradient, "gradient", f"gradient of {name}")
        recorder.declare(self.x, "input", "input")
        recorder.declare(self.y, "input", "labels")

    def finished(self, recorder: Recorder) -> Trace:
        """Return the trace, with what stays alive to its end marked as held."""
        trace = recorder.trace
        _note_results(recorder, self.results)
        for name, tensor in Keepers(list(self.model.named_modules())).tensors(side_by_side=False):
            if recorder.knows(tensor):
                number = recorder.view(tensor).storage
                trace.held.add(number)
                trace.labels.setdefault(number, f"factors of {name}")
        written = {storage for op in trace.ops for storage in op.writes}
        for storage, role in trace.roles.items():
            if role == "constant" and storage in written:
                trace.roles[storage], trace.labels[storage] = "optimizer", "optimizer state"
        return trace


def record_inference(model: nn.Module, x: Tensor, *, with_values: bool = False) -> Trace:
    """Return the trace of a forward pass without gradients, on CPU; the model is only read, in its current mode.

    Raises ConfigError where the model cannot take x.
    """
    model, x = _here(model), x.detach().cpu().clone()
    recorder = Recorder(model, with_values=with_values)
    _declare_weights(recorder, model)
    recorder.declare(x, "input", "input")
    found: list[Tensor] = []
    with torch.no_grad():
        _attempt(lambda: model(x), model, x)
        with recorder:
            found.append(model(x))
    recorder.trace.forward = len(recorder.trace.ops)
    _note_results(recorder, {"output": found[0]})
    return recorder.trace


def _declare_weights(recorder: Recorder, model: nn.Module) -> None:
    slices = layers.slices_of(model)
    for name, parameter in model.named_parameters():
        trained = parameter.requires_grad
        number = recorder.declare(parameter, "trained" if trained else "frozen", name)
        if trained and name in slices:
            recorder.trace.unmoved[number] = parameter.nbytes - slices[name].bytes_of(parameter)
    for name, buffer in model.named_buffers():
        recorder.declare(buffer, "frozen", name)


def _note_results(recorder: Recorder, results: dict[str, Tensor]) -> None:
    trace = recorder.trace
    for name, tensor in results.items():
        view = recorder.view(tensor)
        trace.results[name] = view
        trace.held.add(view.storage)
        trace.labels.setdefault(view.storage, name)
        if trace.values:
            trace.found[name] = tensor.detach().clone()


def _move(optimizer: Optimizer, _parameter: Tensor) -> None:
    optimizer.step_(RATE)


def _attempt(run: Callable[[], object], model: nn.Module, x: Tensor) -> None:
    """Run once; turn an error of the model itself into a ConfigError of one line."""
    try:
        run()
    except FedAsiError:
        raise
    except Exception as error:  # a forward or backward can raise anything
        raise ConfigError(
            f"{type(model).__name__} fails in a step on an input of {tuple(x.shape)}: {first_line(error)!r}; "
            "no memory can be planned for it"
        ) from error
