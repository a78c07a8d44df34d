"""A small study on disk: two budgets, two seeds, on six devices with scikit-learn's digits."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from fed_asi.fleets.config import RunConfig
from fed_asi.results.schema import DeviceRoundRecord, RoundRecord
from fed_asi.results.store import RunStore
from fed_asi.results.versions import versions as now
from fed_asi.studies.grid import PlannedRun
from fed_asi.studies.one_run import Ended, Said, Task

FLEET = """
name = "six"
seed = 3
rounds = 2
cohort = 3
[model]
name = "tiny"
weights = "none"
[data]
source = "digits"
public = 64
limit = 240
test_limit = 64
[sharding]
minimum = 12
[method]
name = "vanilla"
layers = 1
calibration_images = 16
[[groups]]
name = "tight"
count = 3
budget = "64 KiB"
batch_size = 16
schedule = [{round = 2, budget = "32 KiB"}]
[[groups]]
name = "roomy"
count = 3
budget = "unlimited"
batch_size = 16
"""

STUDY = """
name = "tiny"
title = "Tiny"
fleet = "fleet.toml"
baseline = "unlimited"
[set]
train.lr = 0.1
[grid]
seed = [0, 1]
budget = ["96 KiB", "unlimited"]
"""


def write_study(folder: Path, text: str = STUDY, fleet: str = FLEET) -> Path:
    """Write a study file and its fleet file, and return the first's path."""
    (folder / "fleet.toml").write_text(fleet)
    (folder / "study.toml").write_text(text)
    return folder / "study.toml"


class MadeUp:
    """Workers that make records up, in no time, in the order they are asked; behave: what a run comes to, by name."""

    def __init__(self, behave: Callable[[str], Ended] = lambda _name: Ended(), at_once: int = 1) -> None:
        self._behave, self._at_once = behave, at_once
        self._begun: list[tuple[str, Task]] = []
        self.asked: list[str] = []
        self.stopped = False

    def free(self) -> int:
        return self._at_once - len(self._begun)

    def begin(self, name: str, task: Task) -> None:
        self.asked.append(name)
        self._begun.append((name, task))

    def events(self, seconds: float) -> Iterator[tuple[str, Said | Ended]]:
        begun, self._begun = self._begun, []
        for name, task in begun:
            yield name, Said("accuracy 50.0 %", 1, 2)
            ended = self._behave(name)
            if ended.cause is None:
                make_up(task)
            yield name, ended

    def stop(self) -> None:
        self.stopped = True


def make_up(task: Task, *, finish: bool = True, versions: dict[str, str] | None = None) -> None:
    """Write the records of a whole run, or of its first round."""
    folder, config = Path(task.folder), RunConfig.from_json(task.config)
    with RunStore.create(folder, config, versions or now()) as store:
        for number in range(config.rounds + 1 if finish else 2):
            trained = [DeviceRoundRecord(number, 0, "trained")] if number else []
            accuracy = 0.5 + 0.1 * number
            store.add_round(
                RoundRecord(number, len(trained), len(trained), 1.0, accuracy, host_seconds=2.0), trained
            )
        if finish:
            store.set_status("finished", weights_sha256=f"weights of {folder.name}")


def task_of(run: PlannedRun) -> Task:
    """Return what a worker would be asked for a run."""
    return Task(run.config.to_json(), str(run.cell.folder), {})
