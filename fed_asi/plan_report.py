"""Plans and profiles as text for people."""

from __future__ import annotations

from fed_asi.plans import FLOOR, Plan
from fed_asi.profiles import Profile
from fed_asi.units import format_bytes


def _columns(rows: list[tuple[str, ...]]) -> str:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
    return "\n".join(line.rstrip() for line in lines)


def profile_table(profile: Profile) -> str:
    """Return one line a layer: input, gradient norm, candidates, bytes from the smallest to the largest."""
    rows: list[tuple[str, ...]] = [("layer", "input", "||dW||", "candidates", "smallest", "whole")]
    smallest = profile.micro_batches[0]
    for layer in profile.layers:
        sizes = [c.saved_bytes for c in layer.candidates[smallest]] or [0]
        shape = "x".join(str(n) for n in layer.input_shape)
        texts = (str(len(sizes)), format_bytes(min(sizes)), format_bytes(max(sizes)))
        rows.append((layer.name, shape, f"{layer.weight_norm:.3g}", *texts))
    head = f"profile of {profile.num_examples} examples, bytes at micro-batch {smallest}"
    return f"{head}\n{_columns(rows)}"


def plan_table(plan: Plan) -> str:
    """Return one line a layer: the form it is kept in and its bytes."""
    rows: list[tuple[str, ...]] = [("layer", "kept as", "bytes")]
    rows += [(n, str(m), format_bytes(plan.layer_bytes.get(n, 0))) for n, m in plan.methods.items()]
    rows.append(("masks, pooled features, loss", "", format_bytes(plan.layer_bytes.get(FLOOR, 0))))
    head = (
        f"budget {format_bytes(plan.budget_bytes)}, planned {format_bytes(plan.planned_bytes)} "
        f"({plan.count}), micro-batch {plan.micro_batch}, {plan.objective} {plan.value:.4g}"
    )
    return f"{head}\n{_columns(rows)}"
