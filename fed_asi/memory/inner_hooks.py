"""What a network's own saved-tensor hooks keep: torch asks the innermost hooks alone, so a meter outside sees nothing.

`torch.autograd.graph.save_on_cpu` is such a pair of hooks, gradient checkpointing another.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch.autograd.graph import saved_tensors_hooks

Note = Callable[[Any], None]


@contextmanager
def noted(note: Note) -> Iterator[None]:
    """Call `note` with whatever hooks that are entered in the block, by this thread, keep of a tensor."""
    entered, thread = saved_tensors_hooks.__enter__, threading.get_ident()

    def enter(hooks: saved_tensors_hooks) -> None:
        if threading.get_ident() == thread:
            hooks.pack_hook = _noting(hooks.pack_hook, note)
        entered(hooks)

    saved_tensors_hooks.__enter__ = enter  # type: ignore[method-assign]
    try:
        yield
    finally:
        saved_tensors_hooks.__enter__ = entered  # type: ignore[method-assign]


def _noting(pack: Callable[[Any], Any], note: Note) -> Callable[[Any], Any]:
    def packed(tensor: Any) -> Any:
        kept = pack(tensor)
        note(kept)
        return kept

    return packed
