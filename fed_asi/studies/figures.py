"""All figures of a study, in the order in which a reader needs them."""

from __future__ import annotations

from dataclasses import dataclass

from fed_asi.results.drawing import drawing
from fed_asi.studies.curves import curves
from fed_asi.studies.drawing import Picture
from fed_asi.studies.findings import Findings
from fed_asi.studies.frontier import frontiers, ladders
from fed_asi.studies.pairs import pairs
from fed_asi.studies.participation import costs, participation


@dataclass(frozen=True, slots=True)
class Pictures:
    """The figures, grouped by their purpose: first the answer to the study's question, then the details."""

    answer: tuple[Picture, ...]
    frontiers: tuple[Picture, ...]
    curves: tuple[Picture, ...]
    costs: tuple[Picture, ...]
    participation: tuple[Picture, ...]

    def all(self) -> tuple[Picture, ...]:
        """Return all figures."""
        return (*self.answer, *self.frontiers, *self.curves, *self.costs, *self.participation)


def draw(found: Findings) -> Pictures:
    """Return the figures for which the runs have data."""
    with drawing():
        steps, fronts, spent = tuple(ladders(found)), tuple(frontiers(found)), tuple(costs(found))
        first = {"robustness": steps, "cost": spent}.get(found.study.kind) or fronts or steps
        answer = first[:2]
        return Pictures(
            answer,
            tuple(one for one in (*fronts, *steps) if one not in answer),
            (*pairs(found), *curves(found)),
            tuple(one for one in spent if one not in answer),
            tuple(participation(found)),
        )
