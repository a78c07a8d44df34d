"""A frozen trunk in float16: weights and activations between layers rounded to half precision, sums in float32.

The order of a sum decides its last bits, as in a float32 trunk, so features are the same on machines of one kind, not
on all.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, fx, nn

from fed_asi.errors import UnsupportedLayerError


class Rounded(nn.Module):
    """Rounds numbers to float16; anything but float32 tensors passes unchanged."""

    def forward(self, x: Tensor) -> Tensor:
        """Return the numbers rounded, float32."""
        return x.half().float() if isinstance(x, Tensor) and x.dtype == torch.float32 else x


def float16_trunk(trunk: fx.GraphModule) -> fx.GraphModule:
    """Return a copy of a trunk whose weights and activations are rounded to float16.

    Raises UnsupportedLayerError for weights outside the range of float16.
    """
    made = copy.deepcopy(trunk)
    round_(made)
    made.add_submodule("rounded", Rounded())
    for node in list(made.graph.nodes):
        if node.op in {"placeholder", "call_module", "call_function", "call_method"}:
            with made.graph.inserting_after(node):
                after = made.graph.call_module("rounded", (node,))
            node.replace_all_uses_with(after, delete_user_cb=lambda user, new=after: user is not new)
    made.recompile()
    return made


@torch.no_grad()
def round_(model: nn.Module) -> None:
    """Round every frozen parameter and every statistic of a model to float16."""
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        if tensor.is_floating_point() and not tensor.requires_grad:
            tensor.copy_(float16_numbers(name, tensor))


def float16_numbers(name: str, tensor: Tensor) -> Tensor:
    """Return numbers rounded to float16, in float32. Raises UnsupportedLayerError, with the name, if out of range."""
    rounded = tensor.detach().half().float()
    if bool((rounded.isinf() & tensor.isfinite()).any()):
        raise UnsupportedLayerError(
            f"{name} cannot be stored as float16: it reaches {float(tensor.abs().max()):.4g}, and the most is 65504; "
            "use float32 or int8"
        )
    return rounded
