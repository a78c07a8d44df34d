"""What a network's own saved-tensor hooks keep: torch calls only the innermost hooks, so an outer meter sees nothing.

`torch.autograd.graph.save_on_cpu` uses such a pair of hooks, and so does gradient checkpointing.
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
    """Call `note` with everything that saved-tensor hooks keep, if this thread enters them inside the block."""
    entered, thread = saved_tensors_hooks.__enter__, threading.get_ident()

    def enter(hooks: saved_tensors_hooks) -> None:
        if threading.get_ident() != thread:
            entered(hooks)
            return
        own = hooks.pack_hook
        hooks.pack_hook = _Noting(own, note)  # torch gets this hook; the object is restored below
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
    """A pack hook that reports what it keeps. Attributes are those of the original: checkpoints set marks on theirs."""

    def __init__(self, pack: Callable[[Any], Any], note: Note) -> None:
        self._pack, self._note = pack, note

    def __call__(self, tensor: Any) -> Any:
        kept = self._pack(tensor)
        self._note(kept)
        return kept

    def __getattr__(self, name: str) -> Any:
        return getattr(self._pack, name)
