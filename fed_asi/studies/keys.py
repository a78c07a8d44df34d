"""The keys that a study may set: the fleet file's, two that stand for several of them, and those it may not set."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from fed_asi.errors import ConfigError
from fed_asi.fleets.overrides import put_
from fed_asi.studies.cells import Setting
from fed_asi.units import format_bytes, parse_bytes, shown

VARIANT = "variant"
BUDGET, FAULTS = (
    "budget",
    "faults",
)  # a budget of all devices in all rounds; a share split equally into lost, late and over budget
_NOT_ITS_OWN = {
    "name": "runs are named by the study",
    "version": "it is the file's own",
    "compute.backend": "a study's runs are plain loops, side by side",
    "compute.workers": "a study's runs are plain loops; --jobs says how many at once",
    "compute.cpus_per_client": "a study's runs are plain loops of one process each",
    "compute.gpus_per_client": "a study's runs are plain loops; each uses the GPU that compute.device names",
    "compute.ray_address": "runs are spread over a cluster by --ray-address",
}


def key_problem(key: str, seed: bool = False) -> str | None:
    """Return why a study cannot set this key; None if it can. seed: whether it is in the grid, where seeds belong."""
    if key == "seed" and not seed:
        return "seeds belong under [grid], as every variant has the same: seed = [0, 1, 2]"
    return _NOT_ITS_OWN.get(key)


def value_problem(key: str, value: Any) -> str | None:
    """Return what is wrong with a value of a study's own key; None also if the fleet's checks will find it."""
    if key == BUDGET:
        try:
            parse_bytes(value)
        except ConfigError as error:
            return str(error)
    if key == FAULTS and (
        isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1
    ):
        return f"must be a share from 0 to 1, not {shown(value)}"
    if key == "seed" and (isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**63):
        return f"must be a whole number from 0 to 2**63 - 1, not {shown(value)}"
    return None


def set_(raw: dict[str, Any], key: str, value: Any) -> str | None:
    """Set a study's key in a fleet file's content. Return what is wrong with the key, or None."""
    if key == BUDGET:
        _budget_of_everyone_(raw, value)
        return None
    if key == FAULTS:
        raw["faults"] = dict.fromkeys(("lost", "late", "over_budget"), value / 3) if value else {}
        return None
    return put_(raw, key, value)


def in_order(settings: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """Return settings in the order to set them: keys that stand for several first, so that others can refine them."""
    return sorted(settings.items(), key=lambda one: one[0] not in (BUDGET, FAULTS))


def _budget_of_everyone_(raw: dict[str, Any], budget: Any) -> None:
    """Give every device this budget in every round; schedules and budgets of single devices are removed."""
    for table in ("groups", "devices"):
        entries = raw.get(table)
        for entry in entries if isinstance(entries, list) else ():
            if isinstance(entry, dict):
                entry["budget"] = budget
                entry.pop("schedule", None)
    raw.pop("budgets", None)
    raw.pop("budgets_csv", None)


def is_same(one: Any, other: Any) -> bool:
    """Return whether two values of a file are equal; true is not equal to 1."""
    return type(one) is type(other) and one == other


def setting_of(value: Any) -> Setting:
    """Return a value as a cell stores it: a list or table as JSON."""
    return value if value is None or isinstance(value, str | int | float | bool) else json.dumps(value)


def label_of(key: str, value: Any, keys: Sequence[str]) -> str:
    """Return the label of an axis value, for people. keys: of all axes, so that no two labels are equal."""
    if key == BUDGET:
        return value if isinstance(value, str) else format_bytes(value)
    if key == FAULTS:
        return f"{100 * value:g} % of devices fail" if value else "no device fails"
    parts = key.split(".")
    if parts[-1] == "name" and isinstance(value, str):
        return value
    alone = sum(other.split(".")[-1] == parts[-1] for other in keys) == 1
    said = setting_of(value)
    return f"{parts[-1] if alone else key} {str(said).lower() if isinstance(said, bool) else said}"


def slug_of(label: str) -> str:
    """Return a label as part of a folder name that is valid on any file system; may be empty."""
    return re.sub(r"[^a-z0-9.]+", "-", label.lower()).strip("-.")
