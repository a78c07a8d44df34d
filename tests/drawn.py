"""A run's figures as the calls that matplotlib received; no pictures are rendered."""

from __future__ import annotations

import pytest
from matplotlib.figure import Figure

from fed_asi.results import figures
from fed_asi.results.summary import Summary


def figures_of(*summaries: Summary) -> dict[str, Figure]:
    """Every figure by its title, as it was when it was saved; of two panels the one where they are side by side."""
    held: list[Figure] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(figures, "saved", lambda figure, _kind: held.append(figure) or b"")
        titles = figures.draw(summaries, bitmaps=False)
    wide = [one for one in held if len(one.axes) == 1 or one.get_figwidth() > one.get_figheight()]
    return dict(zip(titles, wide, strict=True))
