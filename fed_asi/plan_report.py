"""Plans and profiles as text and figures for people."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from fed_asi.errors import BudgetError, ConfigError
from fed_asi.methods import ASI, Method, Quantized
from fed_asi.planner import plan
from fed_asi.plans import FLOOR, Plan, differences
from fed_asi.profiles import Candidate, LayerProfile, Profile
from fed_asi.units import format_bytes

RIVALS: dict[str, dict[str, Any]] = {
    "exact, micro-batches": {"methods": ("vanilla", "mean")},
    "ASI alone": {"methods": ("asi",)},
    "bias only": {"methods": ("bias",)},
    "head only": {"methods": ("vanilla",), "layers": "last 0"},
}
_BETTER = 0.01  # of the gradient energy there is: less is not worth another budget
_COLORS = {
    "vanilla": "#4477aa", "quantized": "#66ccee", "asi": "#228833", "mean": "#ccbb44", "bias": "#bbbbbb",
    FLOOR: "#aa3377",
}  # fmt: skip


def columns(rows: Sequence[tuple[str, ...]]) -> str:
    """Return rows of cells as aligned lines."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
    return "\n".join(line.rstrip() for line in lines)


def profile_table(profile: Profile) -> str:
    """Return one line a layer: input, gradient norm, candidates, bytes from the smallest to the largest."""
    rows: list[tuple[str, ...]] = [("layer", "input", "||dW||", "forms", "smallest", "whole")]
    smallest = profile.micro_batches[0]
    for layer in profile.layers:
        sizes = [c.saved_bytes for c in layer.candidates[smallest]] or [0]
        shape = "x".join(str(n) for n in layer.input_shape)
        texts = (str(len(sizes)), format_bytes(min(sizes)), format_bytes(max(sizes)))
        rows.append((layer.name, shape, f"{layer.weight_norm:.3g}", *texts))
    head = f"profile of {profile.num_examples} examples, bytes at micro-batch {smallest}"
    return f"{head}\n{columns(rows)}"


def form_text(method: Method) -> str:
    """Return a form in a few words, such as "Tucker 1x8x4x4 in 8 bits, centred"."""
    words = {"vanilla": "whole", "mean": "spatial mean", "bias": "bias only"}.get(method.kind, str(method))
    if isinstance(method, ASI):
        words = f"Tucker {'x'.join(str(r) for r in method.ranks)}" + (
            " in 8 bits" if method.bits == 8 else ""
        )
    if isinstance(method, Quantized):
        words = f"{method.bits} bits"
    return words + (", centred" if getattr(method, "centered", False) else "")


def plan_table(chosen: Plan, profile: Profile | None = None) -> str:
    """Return one line a layer: the form it is kept in, its bytes and, with a profile, its gradient error."""
    rows: list[tuple[str, ...]] = [("layer", "kept as", "bytes", "dW error" if profile else "")]
    for name, method in chosen.methods.items():
        size = format_bytes(chosen.layer_bytes.get(name, 0))
        rows.append((name, form_text(method), size, _error_text(chosen, profile, name, method)))
    rows.append(("masks, loss", "", format_bytes(chosen.layer_bytes.get(FLOOR, 0)), ""))
    head = (
        f"budget {format_bytes(chosen.budget_bytes)}, planned {format_bytes(chosen.planned_bytes)} "
        f"({chosen.count}), micro-batch {chosen.micro_batch}, {chosen.objective} {chosen.value:.4g}"
    )
    return f"{head}\n{columns(rows)}"


def _error_text(chosen: Plan, profile: Profile | None, name: str, method: Method) -> str:
    if profile is None or not method.trains_weight:
        return "-" if profile else ""
    layer = profile.layer(name)
    found = _candidate(layer, chosen.micro_batch, method)
    norm = layer.centered_energy**0.5 if getattr(method, "centered", False) else layer.weight_norm
    return f"{found.error / norm:.1%}" if found and norm else "-"


def _candidate(layer: LayerProfile, micro_batch: int, method: Method) -> Candidate | None:
    return next((c for c in layer.candidates[micro_batch] if c.method == method), None)


def captured_share(chosen: Plan, profile: Profile) -> float:
    """Return the share, at most 1, of the profiled layers' centred gradient energy that the plan captures."""
    total = sum(layer.centered_energy + layer.bias_energy for layer in profile.layers)
    captured = 0.0
    for name, method in chosen.methods.items():
        layer = profile.layer(name)
        found = _candidate(layer, chosen.micro_batch, method) if method.trains_weight else None
        captured += (layer.bias_energy if method.trains_bias else 0.0) + (found.captured if found else 0.0)
    return captured / total if total else 0.0


def rivals_table(profile: Profile, budget: int | None, ours: Plan) -> str:
    """Return what simpler ways reach within the same bytes: share captured, bytes, micro-batch."""
    rows: list[tuple[str, ...]] = [
        ("at the same bytes", "gradient captured", "bytes", "micro-batch", "layers")
    ]
    rows.append(("this plan", *_reached(ours, profile)))
    for name, options in RIVALS.items():
        try:
            rows.append((name, *_reached(plan(profile, budget, **options), profile)))
        except BudgetError as error:
            rows.append((name, "does not fit: " + str(error).split(". ")[0], "", "", ""))
        except ConfigError:
            rows.append((name, "not in this profile", "", "", ""))
    return columns(rows)


def _reached(chosen: Plan, profile: Profile) -> tuple[str, str, str, str]:
    share = captured_share(chosen, profile)
    return (
        f"{share:.1%}",
        format_bytes(chosen.planned_bytes),
        str(chosen.micro_batch),
        str(len(chosen.methods)),
    )


def next_better(profile: Profile, ours: Plan, **options: Any) -> Plan | None:
    """Return the plan of the smallest budget that captures one part in a hundred more, or None if none does.

    options: those `ours` was planned with.
    """
    most = plan(profile, None, **options)
    wanted = ours.value + _BETTER * abs(most.value)
    if most.value < wanted:
        return None
    low, high = ours.planned_bytes, most.planned_bytes
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if plan(profile, middle, **options).value >= wanted else (middle, high)
    return plan(profile, high, **options)


def breakdown(profile: Profile, chosen: Plan, **options: Any) -> str:
    """Return the whole text of `fed-asi plan`."""
    parts = [plan_table(chosen, profile)]
    static = sum(4 * len(mean) for mean in chosen.means.values())
    trained = 4 * sum(_parameters(profile.layer(name), m) for name, m in chosen.methods.items())
    parts.append(
        f"beside these: gradients {format_bytes(trained)} (none when weights are updated in every backward), "
        f"fixed means {format_bytes(static)}"
    )
    parts.append(rivals_table(profile, chosen.budget_bytes, chosen))
    better = next_better(profile, chosen, **options)
    if better is None:
        parts.append("No budget captures more than 1 % more.")
    else:
        share = captured_share(better, profile)
        changed = ", ".join(n for n in differences(chosen, better) if n in {*chosen.methods, *better.methods})
        size = format_bytes(better.planned_bytes)
        parts.append(f"Something better needs {size}: {share:.1%} captured; changes {changed}")
    return "\n\n".join(parts)


def _parameters(layer: LayerProfile, method: Method) -> int:
    return layer.weight_parameters * method.trains_weight + layer.bias_parameters * method.trains_bias


def schedule_table(profile: Profile, changes: Sequence[tuple[int, int | None]], **options: Any) -> str:
    """Return the plans of a schedule of budgets ahead of time: a line a change.

    changes: (from this round, budget in bytes or None), rounds ascending. options: those of `plan`. A budget
    without a plan is a line that says so.
    """
    rows = [
        ("from round", "budget", "planned", "micro-batch", "layers", "captured", "kept otherwise than before")
    ]
    before: Plan | None = None
    for round, budget in changes:
        size = "unlimited" if budget is None else format_bytes(budget)
        try:
            chosen = plan(profile, budget, **options)
        except BudgetError as error:
            rows.append((str(round), size, "none", "-", "-", "-", str(error).partition(" (")[0]))
            continue
        rows.append(
            (
                str(round),
                size,
                format_bytes(chosen.planned_bytes),
                str(chosen.micro_batch),
                str(len(chosen.trained)),
                f"{captured_share(chosen, profile):.1%}",
                _changed(before, chosen),
            )
        )
        before = chosen
    return columns(rows)


def _changed(before: Plan | None, chosen: Plan) -> str:
    if before is None:
        return "-"
    names = {**before.methods, **chosen.methods}
    count = sum(before.methods.get(name) != chosen.methods.get(name) for name in names)
    return f"{count} of {len(names)} layers"


def diff_table(left: Plan, right: Plan) -> str:
    """Return one line for everything in which two plans differ."""
    found = differences(left, right)
    if not found:
        return "the plans are equal"
    return columns([("", "first", "second"), *((name, *sides) for name, sides in found.items())])


def figure(plans: Iterable[tuple[str, Plan]], path: Path) -> None:
    """Draw bytes by layer, coloured by form, one bar a plan, into a file (.svg, .png, .pdf)."""
    import matplotlib as mpl

    mpl.use("agg")
    from matplotlib import pyplot as plt
    from matplotlib.patches import Patch
    from matplotlib.ticker import PercentFormatter

    drawn: set[str] = set()
    named = list(plans)
    fig, axis = plt.subplots(figsize=(9, 1.2 + 0.6 * len(named)), layout="constrained")
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
        range(len(named)), [f"{n}\n{format_bytes(p.planned_bytes)}" for n, p in named], fontsize=8
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
    plt.close(fig)


def _short(layer: str) -> str:
    parts = [part for part in layer.split(".") if part not in ("conv", "blocks")]
    return "masks" if layer == FLOOR else "\n".join(p.split("_")[0] for p in parts)


def main(argv: Sequence[str] | None = None) -> int:
    """Run `fed-asi plan` and return its exit code; see `fed_asi.plan_command`."""
    from fed_asi.plan_command import main as run

    return run(argv)
