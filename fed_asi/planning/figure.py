"""Plans as a figure: bytes by layer and form."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from fed_asi.errors import ConfigError
from fed_asi.files import check_writable, writing
from fed_asi.planning.plan import FLOOR, Plan
from fed_asi.texts import visible
from fed_asi.units import format_bytes

_COLORS = {
    "vanilla": "#4477aa", "quantized": "#66ccee", "asi": "#228833", "mean": "#ccbb44", "bias": "#bbbbbb",
    FLOOR: "#aa3377",
}  # fmt: skip
KINDS = (".svg", ".png", ".pdf")


def check_figure(path: Path) -> None:
    """Raise ConfigError if the file's name has no image suffix, RunError if it cannot be written."""
    if path.suffix.lower() not in KINDS:
        raise ConfigError(f"--figure {path}: a picture's name ends in {' or '.join(KINDS)}")
    check_writable(path)


def figure(plans: Iterable[tuple[str, Plan]], path: Path) -> None:
    """Draw a stacked bar per plan, bytes by layer coloured by form, into a file (.svg, .png, .pdf).

    Raises ConfigError and RunError as `check_figure` does.
    """
    from matplotlib import rc_context

    check_figure(path)
    with writing(path), rc_context({"text.parse_math": False, "text.usetex": False}):  # names may contain $
        _draw(list(plans), path)


def _draw(named: Sequence[tuple[str, Plan]], path: Path) -> None:
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch
    from matplotlib.ticker import PercentFormatter

    drawn: set[str] = set()
    fig = Figure(figsize=(9, 1.2 + 0.6 * len(named)), layout="constrained")
    axis = fig.add_subplot()
    for row, (_, chosen) in enumerate(named):
        left = 0.0
        for layer, size in chosen.layer_bytes.items():
            kind = FLOOR if layer == FLOOR else chosen.methods[layer].kind
            share = size / chosen.planned_bytes
            drawn |= {kind} if size else set()
            axis.barh(row, share, left=left, color=_COLORS.get(kind, "#888888"), edgecolor="white")
            if share > 0.06:
                ink = "black" if kind in ("quantized", "bias", "mean") else "white"
                middle = left + share / 2
                axis.text(middle, row, _short(layer), color=ink, ha="center", va="center", fontsize=6)
            left += share
    axis.set_yticks(
        range(len(named)), [f"{visible(n)}\n{format_bytes(p.planned_bytes)}" for n, p in named], fontsize=8
    )
    axis.set_xlim(0, 1)
    axis.xaxis.set_major_formatter(PercentFormatter(1.0))
    axis.set_xlabel("share of the planned bytes")
    names = {FLOOR: "masks, loss", "asi": "Tucker", "vanilla": "whole", "quantized": "8 or 4 bits"}
    handles = [
        Patch(color=color, label=names.get(kind, kind)) for kind, color in _COLORS.items() if kind in drawn
    ]
    fig.legend(handles=handles, loc="outside upper center", ncols=6, fontsize=8)
    fig.savefig(path, dpi=150)


def _short(layer: str) -> str:
    parts = [visible(part) for part in layer.split(".") if part not in ("conv", "blocks")]
    return "masks" if layer == FLOOR else "\n".join(p.split("_")[0] for p in parts)
