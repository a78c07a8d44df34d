"""At which resolution devices see their images: pixels of a square input, and what a device may take of them."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator

from fed_asi.fleets.section import Section
from fed_asi.units import shown

RESOLUTIONS = 8, 1024  # the least and the most pixels of a square input


def pixels_of(value: Any) -> tuple[int, ...]:
    """Return resolutions, the largest first, from one number of pixels or several.

    Raises ValueError, which says what is wrong, for anything else.
    """
    given = value if isinstance(value, (list, tuple)) else [value]
    least, most = RESOLUTIONS
    whole = all(isinstance(one, int) and not isinstance(one, bool) for one in given)
    if not given or not whole or not all(least <= one <= most for one in given):
        raise ValueError(
            f"must be pixels of a square input, from {least} to {most}, or a list of them, not {shown(value)}"
        )
    if len(set(given)) < len(given):
        raise ValueError(f"names a resolution twice: {shown(value)}")
    return tuple(sorted(given, reverse=True))


class ResolutionKeys(Section):
    """The key by which a group or a single device says at which resolution it may train; None is the group's.

    Of several a device takes the largest at which it has a plan.
    """

    resolution: Annotated[
        tuple[int, ...] | None,
        BeforeValidator(lambda value: None if value is None else pixels_of(value)),
    ] = None
