"""How a private part of Flower or Ray is named, and how it is told that it has moved.

Each is named once, in flower_private.py or ray_private.py, with what it is for and the form that is known of it.
What only makes a run quicker or quieter is left out where its part has moved; what a run cannot do without is an
error that says so.
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
        """Return how the part differs from what is known of it; empty where it does not."""
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
