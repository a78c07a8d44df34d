"""A frozen trunk as a device with little RAM runs it: its depthwise convolutions take a few channels at a time.

Each output channel of a depthwise convolution needs one input channel, so its input and its output need not both be
whole. With stride 1 the output takes the place of the input, a few channels after another, as TinyEngine does it
(arXiv 2206.15472, in-place depthwise convolution). With a larger stride the convolution before it is made a few
channels at a time as well: MCUNet's largest tensor, the expansion before a stride-2 depthwise convolution, is then
never whole. Both do the same multiplications as the whole layers, each once.

For counting and proving arenas: the features of a run are computed by the whole layers, which is quicker.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any, Final, Literal, cast, get_args

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from fed_asi.compression import cut
from fed_asi.layers.classes import ACTIVATIONS

TrunkBy = Literal["layer", "channel"]
TRUNK_BY: Final[tuple[TrunkBy, ...]] = get_args(TrunkBy)
AT_ONCE: Final = 8  # channels; fewer need less RAM, and more traces and calls


def as_it_runs(trunk: fx.GraphModule, by: TrunkBy) -> fx.GraphModule:
    """Return a copy of a trunk, as it was cut, as a device runs it: batch norms folded, layer by layer or by channels.

    Folding a second time changes nothing.
    """
    folded = cut.folded(trunk)
    return by_channels(folded) if by == "channel" else folded


def by_channels(trunk: fx.GraphModule) -> fx.GraphModule:
    """Return a trunk with the same parameters and output that runs its depthwise convolutions by channels.

    trunk: with its batch norms folded (`cut.folded`); it is only read. Convolutions that it does not apply to run
    whole: those of stride 1 that change the size, those whose input has other uses or is no convolution's output (an
    activation may lie between), and, with a larger stride, those after another depthwise or grouped convolution.
    """
    found = copy.deepcopy(trunk)
    for node in list(found.graph.nodes):
        depthwise = _convolution(found, node)
        if depthwise is None or not _is_depthwise(depthwise):
            continue
        before = _made_for(found, node)
        if before is None:
            continue
        first, between = before
        expansion = _convolution(found, first)
        if _keeps_size(depthwise):
            found.set_submodule(str(node.target), InPlace(depthwise))
        elif expansion is not None and expansion.groups == 1 and min(depthwise.stride) > 1:
            activations = [found.get_submodule(str(one.target)) for one in between]
            found.set_submodule(str(node.target), Fused(expansion, activations, depthwise))
            node.args = first.args
    found.graph.eliminate_dead_code()
    found.delete_all_unused_submodules()
    found.recompile()
    return found


class InPlace(nn.Module):
    """A depthwise convolution that writes its output over its input, (N, C, H, W), some channels at a time."""

    def __init__(self, depthwise: nn.Conv2d) -> None:
        super().__init__()
        self.depthwise = depthwise

    def forward(self, x: Tensor) -> Tensor:
        """Return x, overwritten."""
        for start, stop in _blocks(x.shape[1]):
            part = x[:, start:stop]
            part.copy_(_some(self.depthwise, part, start, stop))
        return x


class Fused(nn.Module):
    """A convolution, activations and a depthwise convolution, made together some channels at a time."""

    def __init__(self, expansion: nn.Conv2d, between: list[nn.Module], depthwise: nn.Conv2d) -> None:
        super().__init__()
        self.expansion, self.depthwise = expansion, depthwise
        self.between = nn.Sequential(*between)

    def forward(self, x: Tensor) -> Tensor:
        """Return the output of the three, (N, C, H, W)."""
        made: Tensor | None = None
        for start, stop in _blocks(self.depthwise.in_channels):
            part = self.between(_some(self.expansion, x, start, stop))
            part = _some(self.depthwise, part, start, stop)
            if made is None:
                shape = (len(x), self.depthwise.out_channels, *part.shape[2:])
                made = torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=torch.channels_last)
            made[:, start:stop].copy_(part)
        assert made is not None
        return made


def _some(convolution: nn.Conv2d, x: Tensor, start: int, stop: int) -> Tensor:
    """Return output channels `start` to `stop`; x: all input channels or, of a depthwise convolution, those."""
    bias = None if convolution.bias is None else convolution.bias[start:stop]
    groups = 1 if convolution.groups == 1 else stop - start
    return F.conv2d(
        x,
        convolution.weight[start:stop],
        bias,
        convolution.stride,
        cast(Any, convolution.padding),  # sizes or a word; torch's types know one of them at a time
        convolution.dilation,
        groups,
    )


def _blocks(channels: int) -> Iterator[tuple[int, int]]:
    for start in range(0, channels, AT_ONCE):
        yield start, min(start + AT_ONCE, channels)


def _convolution(trunk: fx.GraphModule, node: object) -> nn.Conv2d | None:
    """Return the convolution that a node calls; None for others, and for those that do not pad with zeros."""
    if not isinstance(node, fx.Node) or node.op != "call_module":
        return None
    module = trunk.get_submodule(str(node.target))
    if not isinstance(module, nn.Conv2d) or module.padding_mode != "zeros":
        return None
    return module if _called_once(trunk, node) else None


def _called_once(trunk: fx.GraphModule, node: fx.Node) -> bool:
    calls = [one for one in trunk.graph.nodes if one.op == "call_module" and one.target == node.target]
    return len(calls) == 1


def _made_for(trunk: fx.GraphModule, node: fx.Node) -> tuple[fx.Node, list[fx.Node]] | None:
    """Return the convolution whose output only this node reads, and the activations between, in order."""
    between: list[fx.Node] = []
    before = node.args[0]
    while isinstance(before, fx.Node) and len(before.users) == 1 and before.op == "call_module":
        if _convolution(trunk, before) is not None:
            return before, between
        if not isinstance(trunk.get_submodule(str(before.target)), ACTIVATIONS):
            return None
        between.insert(0, before)
        before = before.args[0]
    return None


def _is_depthwise(convolution: nn.Conv2d) -> bool:
    channels = convolution.in_channels, convolution.out_channels
    return convolution.groups > 1 and channels == (convolution.groups, convolution.groups)


def _keeps_size(convolution: nn.Conv2d) -> bool:
    pads, reaches = convolution.padding, zip(convolution.dilation, convolution.kernel_size, strict=True)
    if set(convolution.stride) != {1} or pads == "valid":
        return False
    if isinstance(pads, str):
        return True
    return [2 * pad for pad in pads] == [dilation * (size - 1) for dilation, size in reaches]
