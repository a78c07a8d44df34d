"""What each layer adds to the bytes of a step, so that the arena of another mix of layers is known before it is traced.

A step is cut into stretches: from where a layer runs to where the next one does, in the forward, and the same way back.
While a layer's stretch runs, these are alive:
    what the layers before it saved, for they come later in the backward;
    what the layers behind it hold to the step's end, in the backward: gradients that wait for the update;
    what all but the layers still to come renew in the forward: warm factors;
    the stretch's own tensors: its input and output, what it saves, its gradients and transients.
The first three are sums over other layers; the last depends on the layer's own form alone. So the most bytes alive are
    max over layers j of  sum of (saved_i + renewed_i), i < j,  +  the larger of
        forward_j  and  backward_j + sum of (held_i + renewed_i), i > j.
One thing is no such sum: the input of a residual block is alive through all of its forward, whoever saves it. So it is
the block's first layer that adds it to the forward of those that it passes by, where that layer does not save it.
Where blocks lie within blocks only the innermost counts, and a whole input that two layers save is in the sum of
neither but the first: then the formula is below what is alive, never above it.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Share:
    """Bytes of one layer's stretch of a step.

    saved: from its forward to its backward. held, renewed: from its backward, its forward, to the step's end.
    forward, backward: the most that its own stretch has alive there, its saved bytes among it. inside: the same of
    the forward, while a block's input passes by, which is left out. passes: of the layer's own input, where that is
    not saved and passes by later layers. mean, factors, constant: of the roles of `Trace`.
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
    """A step by layers. before: the most alive in the stretch before the first of them. update: at the very end.

    around: for every layer, the first layer of the block whose input passes it by; -1: none does.
    """

    before: int
    layers: tuple[Share, ...]
    update: int
    around: tuple[int, ...]


def most_alive(found: Shares) -> int:
    """Return the most bytes alive at one time in a step of such layers."""
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
