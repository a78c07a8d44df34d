"""How a private part of Flower or Ray is described, and how it is noticed that it has moved.

Each is described once, in flower_private.py or ray_private.py, with its purpose and its known form. A part that only
makes a run quicker or quieter is skipped if it has moved; for a part that a run needs, an error says so.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from fed_asi.errors import RunError


@dataclass(frozen=True, slots=True)
class Private:
    """One private part. name: where it is. use: what for. look: what is there, as text. known: what should be."""

    name: str
    use: str
    look: Callable[[], object]
    known: object

    def moved(self) -> str:
        """Return how the part differs from its known form; empty if it does not."""
        try:
            found = self.look()
        except (ImportError, AttributeError, KeyError) as error:
            found = f"nothing ({error})"
        return (
            ""
            if found == self.known
            else f"{self.name} has {found}, not {self.known}; it is used to {self.use}"
        )

    def need(self) -> None:
        """Raise RunError where the part has moved: nothing may be done without it."""
        moved = self.moved()
        if moved:
            raise RunError(
                f"{moved}. Use the versions of Flower and Ray that this fed-asi names, or --backend loop"
            )
