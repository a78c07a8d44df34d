"""The state of each run of a study in its folder: new, unfinished or finished; or a run of something else."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from fed_asi.errors import FedAsiError, RunError, first_line
from fed_asi.results.compare import flat
from fed_asi.results.store import RunStore, is_begun
from fed_asi.results.versions import versions
from fed_asi.studies.grid import PlannedRun
from fed_asi.workplace.address import run_fingerprint

DECIDE_BITS = (
    "fed-asi",
    "torch",
    "torchvision",
    "numpy",
    "machine",
)  # versions that decide the results of the loop

State = Literal["new", "unfinished", "finished"]


@dataclass(frozen=True, slots=True)
class Standing:
    """A run, its state, and the host seconds that its rounds took so far. share: of rounds done, 0 to 1."""

    run: PlannedRun
    state: State
    seconds: float = 0.0
    share: float = 0.0


def stand(runs: Sequence[PlannedRun]) -> tuple[list[Standing], list[str]]:
    """Return the state of each run, and a line for each folder with a run of other settings or versions."""
    found, problems = [], []
    now = versions()
    for run in runs:
        try:
            found.append(_standing(run, now))
        except FedAsiError as error:  # includes settings that only a newer version can read
            where = f"{run.cell.folder}: " if str(run.cell.folder) not in str(error) else ""
            problems.append(f"{where}{first_line(error)}")
    return found, problems


def _standing(run: PlannedRun, now: dict[str, str]) -> Standing:
    folder = run.cell.folder
    if not is_begun(folder):
        return Standing(run, "new")
    with RunStore.read(folder) as store:
        record, rounds = store.run(), store.rounds()
        if run_fingerprint(store.config()) != run_fingerprint(run.config):
            differs = _difference(json.loads(record.config), json.loads(run.config.to_json()))
            raise RunError(f"{folder} holds a run of other settings ({differs}): {_WAYS_OUT}")
    for name in DECIDE_BITS:
        if record.versions.get(name) != now.get(name):
            was, here = record.versions.get(name, "none"), now.get(name, "none")
            raise RunError(
                f"{folder} holds a run of another version ({name} {was}, here {here}): {_WAYS_OUT}"
            )
    seconds = sum(one.host_seconds or 0.0 for one in rounds)
    if record.status == "finished":
        return Standing(run, "finished", seconds, 1.0)
    return Standing(run, "unfinished", seconds, max(0, len(rounds) - 1) / run.config.rounds)


_WAYS_OUT = "take another --out or study name, or remove the folder"


def _difference(was: Any, now: Any) -> str:
    return next(_differences(dict(flat(was)), dict(flat(now))), "one that is not shown")


def _differences(was: dict[str, Any], now: dict[str, Any]) -> Iterator[str]:
    for key in sorted(was.keys() | now.keys()):
        if was.get(key) != now.get(key) and key != "name" and not key.startswith("compute."):
            yield f"{key} {was.get(key)!r}, not {now.get(key)!r}"
