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
        if threading.get_ident() != thread:
            entered(hooks)
            return
        own = hooks.pack_hook
        hooks.pack_hook = _Noting(own, note)  # what torch is given; the object itself stays as it was
        try:
            entered(hooks)
        finally:
            hooks.pack_hook = own

    saved_tensors_hooks.__enter__ = enter  # type: ignore[method-assign]
    try:
        yield
    finally:
        saved_tensors_hooks.__enter__ = entered  # type: ignore[method-assign]


class _Noting:
    """A pack hook that tells what it keeps. In all else it is its own: torch's checkpoints put marks on theirs."""

    def __init__(self, pack: Callable[[Any], Any], note: Note) -> None:
        self._pack, self._note = pack, note

    def __call__(self, tensor: Any) -> Any:
        kept = self._pack(tensor)
        self._note(kept)
        return kept

    def __getattr__(self, name: str) -> Any:
        return getattr(self._pack, name)
