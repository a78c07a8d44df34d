"""The names by which forms are asked for, and what each stands for."""

from __future__ import annotations

from collections.abc import Sequence

from fed_asi.errors import ConfigError, nearest
from fed_asi.methods.base import (
    HOSVD,
    FixedSubspace,
    GradientFilter,
    Method,
)

DEFAULT_METHODS = ("asi", "quantized", "vanilla", "bias", "mean")


BASELINES = (HOSVD, FixedSubspace, GradientFilter)


NAMES = (*DEFAULT_METHODS, "asi-published", *(cls.kind for cls in BASELINES))


def kind_name(text: str) -> str:
    """Return the kind a planned method's text stands for: "hosvd" of "hosvd(epsilon=0.7)"."""
    found = baseline(text)
    return found.kind if found is not None else text.removesuffix("-published")


def baseline(text: str) -> Method | None:
    """Return the rival that a text such as "filter(patch=4)" names; None where it names no rival."""
    name = text.partition("(")[0].strip().lower()
    known = [cls for cls in BASELINES if name in {cls.kind, *cls.aliases}]
    return Method.parse(text) if known else None


def method_problems(texts: Sequence[str]) -> list[str]:
    """Return what is wrong with methods that are to be planned."""
    problems = []
    for text in texts:
        try:
            if baseline(text) is None and text not in NAMES:
                hint = "leave the layer out" if text == "frozen" else nearest(text, NAMES)
                problems.append(f"method {text!r} is not known to the planner; {hint}")
        except ConfigError as error:
            problems.append(str(error))
    return problems
