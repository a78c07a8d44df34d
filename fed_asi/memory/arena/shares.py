"""What each layer adds to the bytes of a step: gives the arena of another combination of methods without a new trace.

A step is divided into stretches: a layer's stretch runs from where the layer runs to where the next one does, in the
forward pass and likewise in the backward pass. During the stretch of a layer, these are alive:
    what earlier layers saved, because the backward pass reaches them later;
    in the backward pass, what later layers hold to the end of the step: gradients that wait for the update;
    what the layers whose forward has run renewed in it: warm factors;
    the stretch's own tensors: its input and output, what it saves, its gradients and transients.
The first three are sums over other layers; the last depends on the layer's own form alone. So the peak is
    max over layers j of  sum of (saved_i + renewed_i), i < j,  +  the larger of
        forward_j  and  backward_j + sum of (held_i + renewed_i), i > j.
One part is not such a sum: the input of a residual block is alive during the block's whole forward pass, whichever
layer saves it. The block's first layer adds it to the forward pass of the layers it bypasses, unless that layer saves
it. Of nested blocks only the innermost counts, and an input that two layers save whole counts only for the first. In
these cases the formula gives less than what is alive, never more.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Share:
    """Bytes of one layer's stretch of a step.

    saved: alive from the layer's forward to its backward. held, renewed: alive from its backward or its forward to the
    end of the step. forward, backward: the most that its own stretch has alive there, including its saved bytes.
    inside: the same for the forward while the input of a block bypasses the layer; that input is left out. passes:
    bytes of the layer's own input, if it is not saved and bypasses later layers. mean, factors, constant: see the roles
    of `Trace`.
    """

    saved: int = 0
    held: int = 0
    renewed: int = 0
    forward: int = 0
    inside: int = 0
    backward: int = 0
    passes: int = 0
    mean: int = 0
    factors: int = 0
    constant: int = 0


@dataclass(frozen=True, slots=True)
class Shares:
    """A step, by layers.

    before: the most alive in the stretch before the first layer. update: the most alive in the update, without what is
    held or renewed. around: for every layer, the first layer of the block whose input bypasses it; -1: no input does.
    """

    before: int
    layers: tuple[Share, ...]
    update: int
    around: tuple[int, ...]


def most_alive(found: Shares) -> int:
    """Return the peak of the bytes alive in a step of such layers."""
    after = need = passed = 0
    for i in reversed(range(len(found.layers))):
        one, opens = found.layers[i], i in found.around
        stays = one.saved + one.renewed
        need = max(one.forward, one.inside, one.backward + after, stays + need)
        if opens:
            need = max(need, stays + passed + one.passes)
        behind = passed + stays if passed and not opens else 0
        passed = max(behind, one.inside) if found.around[i] >= 0 else 0
        after += one.held + one.renewed
    return max(need, found.before, after + found.update)
