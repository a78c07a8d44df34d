"""Where the time of a step goes: a plan's work split by purpose; the parts add up to what the clock counts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from fed_asi.memory.work import Layer, Network, Work, total
from fed_asi.methods import BiasOnly, Frozen, Method
from fed_asi.planning.device_round import DeviceRound

TRUNK, FORWARD, AGAIN = "frozen trunk", "forward", "forward again"
KEEPING, INPUTS, WEIGHTS = "compressing what is kept", "input gradients", "weight gradients"
BESIDE, UPDATE, JUDGING = "activations, pools, loss", "update of the weights", "judging"
_FROZEN: Method = Frozen()
_TRAINS: Method = BiasOnly()
_Part = tuple[str, Work]


def step_parts(round: DeviceRound, methods: Mapping[str, Method], micro_batch: int) -> dict[str, Work]:
    """Return a round's work by purpose, in the order of a step, without parts that take nothing."""
    duty = round.duty
    found = {TRUNK: duty.passed(round.trunk, micro_batch)}
    for size, count in duty.sizes(micro_batch):
        for part, work in _of_step(round.tail, size, methods, duty.twice):
            found[part] = total([found.get(part, Work()), work.times(count)])
    found[UPDATE] = round.tail.update(methods).times(duty.updates(micro_batch))
    found[JUDGING] = duty.judged(round.trunk, round.tail, micro_batch)
    return {part: work for part, work in found.items() if any(work)}


def _of_step(network: Network, batch: int, methods: Mapping[str, Method], twice: bool) -> Iterator[_Part]:
    """Yield the parts of one micro-batch's forward and backward."""
    trained = {name for name, method in methods.items() if method.trains_bias}
    for part in network.parts:
        gradient = not trained.isdisjoint(part.after)
        if isinstance(part, Layer):
            yield from _of_layer(part, batch, methods.get(part.name, _FROZEN), gradient, twice)
            continue
        yield BESIDE, part.forward(batch, keeps=gradient)
        if gradient:
            yield BESIDE, part.backward(batch)
            yield from [(AGAIN, part.forward(batch, keeps=True))] * twice
    yield BESIDE, Network(()).step(batch, {})  # the loss


def _of_layer(layer: Layer, batch: int, method: Method, gradient: bool, twice: bool) -> Iterator[_Part]:
    if not (gradient or method.trains_bias):
        yield FORWARD, layer.forward(batch, None)
        return
    forward, keeping = layer.forward(batch, method), layer.keeping(batch, method)
    backward = layer.backward(batch, method, gradient)
    inputs = layer.backward(batch, _FROZEN, gradient)
    yield FORWARD, forward
    yield KEEPING, keeping
    yield INPUTS, inputs
    yield WEIGHTS, _less(backward, inputs)
    if twice:
        alone, methods = Network((layer,)), _as_it_is(layer, method, gradient)
        yield AGAIN, _less(alone.step(batch, methods, twice=True), alone.step(batch, methods))


def _as_it_is(layer: Layer, method: Method, gradient: bool) -> dict[str, Method]:
    """Return methods under which a network of this layer alone does the same work as the layer in the whole network."""
    before: dict[str, Method] = dict.fromkeys(sorted(layer.after)[:1] if gradient else [], _TRAINS)
    return {**before, layer.name: method}


def _less(work: Work, other: Work) -> Work:
    return Work(*(a - b for a, b in zip(work, other, strict=True)))
