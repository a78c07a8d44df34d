"""Plans as text for people."""

from __future__ import annotations

from typing import Any

from fed_asi.methods import Method
from fed_asi.planning.columns import columns
from fed_asi.planning.plan import Plan, differences
from fed_asi.planning.profile import LayerProfile, Profile
from fed_asi.planning.rivals import candidate_of, captured_share, next_better, rivals_table
from fed_asi.units import format_bytes


def plan_table(chosen: Plan, profile: Profile, width: int | None = None) -> str:
    """Return a table with a line per layer: its form, its bytes and its gradient error. width: see `columns`."""
    errors = {name: _error_text(chosen, profile, name, m) for name, m in chosen.methods.items()}
    return chosen.table(errors, width)


def _error_text(chosen: Plan, profile: Profile, name: str, method: Method) -> str:
    if not method.trains_weight:
        return "-"
    layer = profile.layer(name)
    found = candidate_of(layer, chosen.micro_batch, method)
    norm = layer.centered_energy**0.5 if method.centers else layer.weight_norm
    return f"{found.error / norm:.1%}" if found and norm else "-"


def breakdown(profile: Profile, chosen: Plan, width: int | None = None, **options: Any) -> str:
    """Return the whole text of `fed-asi plan`. width: of its tables, see `columns`."""
    parts = [plan_table(chosen, profile, width)]
    static = sum(4 * len(mean) for mean in chosen.means.values())
    trained = 4 * sum(_parameters(profile.layer(name), m) for name, m in chosen.methods.items())
    parts.append(
        f"besides these: gradients {format_bytes(trained)} (none when weights are updated in every backward pass), "
        f"fixed means {format_bytes(static)}"
    )
    parts.append(rivals_table(profile, chosen.budget_bytes, chosen, width))
    better = next_better(profile, chosen, **options)
    if better is None:
        parts.append("No larger budget captures over 1 % more.")
    else:
        share = captured_share(better, profile)
        changed = ", ".join(n for n in differences(chosen, better) if n in {*chosen.methods, *better.methods})
        size = format_bytes(better.planned_bytes)
        parts.append(f"The next better plan needs {size}: {share:.1%} captured; changes {changed}")
    return "\n\n".join(parts)


def _parameters(layer: LayerProfile, method: Method) -> int:
    return layer.weight_parameters * method.trains_weight + layer.bias_parameters * method.trains_bias


def diff_table(left: Plan, right: Plan, width: int | None = None) -> str:
    """Return a table with a line for each difference between two plans. width: see `columns`."""
    found = differences(left, right)
    if not found:
        return "the plans are equal"
    return columns([("", "first", "second"), *((name, *sides) for name, sides in found.items())], width)
