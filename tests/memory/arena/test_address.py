"""Addresses of plans: equal for equal steps, different wherever anything differs that affects sizes, or none."""

from __future__ import annotations

import copy
from functools import partial

import torch
from torch import nn

from fed_asi.compression.compress import compress_
from fed_asi.memory.arena.address import address_of
from fed_asi.methods import ASI, HOSVD, Quantized
from fed_asi.training.sgd import Sgd
from tails import tail_of

X = torch.ones(2, 3, 8, 8)


def net(**changes: object) -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 3, **changes), nn.BatchNorm2d(4), nn.ReLU())


def test_copies_have_the_same_address_whatever_their_values() -> None:
    assert address_of(net(), (X,)) == address_of(net(), (2 * X,)) is not None
    model = net()
    assert address_of(copy.deepcopy(model), (X,)) == address_of(model, (X,))
    one, other = (tail_of("tiny", Quantized(8)) for _ in range(2))
    assert address_of(one.model, (X,)) == address_of(other.model, (X,)) is not None


def test_whatever_sizes_follow_from_tells_them_apart() -> None:
    model, last = net(), X.to(memory_format=torch.channels_last)
    frozen = net()
    frozen[0].weight.requires_grad_(False)
    found = [
        address_of(model, (X,)),
        address_of(model, (X[:1],)),
        address_of(model, (X.double(),)),
        address_of(model, (last,)),
        address_of(net(padding=1), (X,)),
        address_of(net(stride=2), (X,)),
        address_of(net().eval(), (X,)),
        address_of(frozen, (X,)),
        address_of(model, (X,), "held"),
        address_of(model, (X,), partial(Sgd, momentum=0.9)),
        address_of(model, (X,), partial(Sgd, momentum=0.5)),
        address_of(model, (X,), nn.functional.cross_entropy),
    ]
    for method in (ASI((1, 2, 2, 2)), ASI((1, 3, 2, 2)), Quantized(8)):
        compressed = net()
        compress_(compressed, method)
        found.append(address_of(compressed, (X,)))
    assert len(set(found)) == len(found)
    assert None not in found


def test_what_is_unknown_has_none() -> None:
    model = net()
    model[0].register_forward_hook(lambda *_: None)
    assert address_of(model, (X,)) is None
    model = net()
    model[0].odd = object()
    assert address_of(model, (X,)) is None
    compress_(model := net(), HOSVD(0.8))
    assert address_of(model, (X,)) is None
    factor = 2
    assert address_of(net(), (X,), lambda a, _b: factor * a.sum()) is None
