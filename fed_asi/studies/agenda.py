"""A study's agenda: every run checked, the state of each, what is left to do, and how long that will take."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from fed_asi.errors import ConfigError
from fed_asi.fleets.config import RunConfig
from fed_asi.machine import cpus_here
from fed_asi.studies.before import check_starts
from fed_asi.studies.cells import StudyRuns
from fed_asi.studies.estimate import ASSUMED_SECONDS, MANY_HOURS, MANY_RUNS, Clock, bytes_of, duration
from fed_asi.studies.grid import PlannedRun, count, expand
from fed_asi.studies.ledger import FILE_NAME, RUNS, Ledger, strangers
from fed_asi.studies.standing import Standing, stand
from fed_asi.studies.study_file import Study
from fed_asi.units import format_bytes, shown

LISTED = 5  # the most names in one line


@dataclass(frozen=True, slots=True)
class Limits:
    """Options of the command. only: a pattern of variants or folders. jobs: None for one per CPU."""

    only: str | None = None
    jobs: int | None = None
    yes: bool = False
    retry: bool = False
    cluster: bool = False


@dataclass(frozen=True, slots=True)
class Agenda:
    """The runs of a study. left: to be done, in this order. lasting: those that failed before and are not repeated."""

    ledger: Ledger
    standings: Sequence[Standing]
    left: Sequence[Standing]
    lasting: Sequence[Standing]
    clock: Clock
    jobs: int
    bytes_left: int | None
    everywhere: bool = False  # on every CPU of a cluster

    @property
    def finished(self) -> int:
        """The number of finished runs."""
        return sum(one.state == "finished" for one in self.standings)

    def lines(self) -> Iterator[str]:
        """Yield the lines that the user reads before the first run."""
        folder = self.ledger.folder
        total, left = len(self.standings), len(self.left)
        yield f"study: {folder}, {_runs(total)}: {self.finished} done, {left} to do{self._how_long()}"
        stopped = [one.run.label for one in self.left if one.state == "unfinished"]
        if stopped:
            yield f"resumes {_runs(len(stopped))} that stopped half-way: {_some(stopped)}"
        for one in self.lasting:
            cause = self.ledger.gaps[one.run.cell.folder.name].cause
            yield f"failed before, and is not repeated without --retry: {one.run.label}: {cause}"
        others = list(strangers(folder, [one.run for one in self.standings]))
        if others:
            yield f"not of this study and left alone, in {folder / RUNS}: {_some(others)}"
        free = _free(folder)
        if self.bytes_left is not None and free is not None and self.bytes_left > free:
            need, room = format_bytes(self.bytes_left), format_bytes(free)
            yield f"the disk may become full: about {need} to come, {room} are free"

    def _how_long(self) -> str:
        if not self.left:
            return ""
        seconds = self.clock.left_seconds(_shares(self.left), self.jobs)
        disk = "" if self.bytes_left is None else f", about {format_bytes(self.bytes_left)} of disk"
        time = "the time is unknown until one has ended" if seconds is None else f"about {duration(seconds)}"
        where = ", one on every CPU of the cluster" if self.everywhere else f" by {self.jobs} at once, {time}"
        return f"{where}{disk}"

    def listed(self) -> Iterator[str]:
        """Yield a line per run: its state, its folder, its variant and seed."""
        left = {one.run.cell.folder for one in self.left}
        for one in self.standings:
            state = one.state if one.state == "finished" or one.run.cell.folder in left else "left out"
            yield f"{state:10} {one.run.cell.folder}  {one.run.label}"

    def listed_data(self) -> list[dict[str, object]]:
        """Return the list of runs as data."""
        left = {one.run.cell.folder for one in self.left}
        return [
            {
                "folder": cell.folder,
                "variant": cell.variant,
                "seed": cell.seed,
                "state": one.state,
                "left_out": one.state != "finished" and cell.folder not in left,
            }
            for one in self.standings
            for cell in [one.run.cell]
        ]

    def gap_lines(self) -> list[str]:
        """Return a line with the number of gaps, then a line for each; empty if there are none."""
        gaps = self.ledger.gaps
        labels = {one.run.cell.folder.name: one.run.label for one in self.standings}
        lines = [f"  {labels[name]}: {gap.cause}" for name, gap in gaps.items()]
        stopped = sum(not gap.lasting for gap in gaps.values())
        how = "the same command continues with them" if stopped == len(gaps) else "--retry repeats them"
        return [f"{len(gaps)} {'gap' if len(gaps) == 1 else 'gaps'}; {how}", *lines] if gaps else []


def agenda(
    study: Study, folder: Path, limits: Limits, data_dir: Path | None = None, weights_dir: Path | None = None
) -> Agenda:
    """Return what a study has to do, after checking that every run can begin.

    folder: the study's own. Raises ConfigError with every problem that can be known before the first run.
    """
    if count(study) > MANY_RUNS and not limits.yes:
        _ask(study, folder, limits)
    runs = expand(study, folder / RUNS, data_dir=data_dir)
    standings, problems = stand(runs)
    chosen = [one for one in standings if _is_chosen(one.run, limits.only)]
    if limits.only is not None and runs and not any(_is_chosen(run, limits.only) for run in runs):
        names = [run.label for run in runs]
        problems.append(f"--only: no run matches {shown(limits.only)}; there are {_some(names)}")
    ledger = _ledger(study, folder, standings)
    failed = {name for name, gap in ledger.gaps.items() if gap.lasting and not limits.retry}
    left = [one for one in chosen if one.state != "finished" and one.run.cell.folder.name not in failed]
    lasting = [one for one in chosen if one.run.cell.folder.name in failed]
    try:
        network_bytes = check_starts([one.run for one in left if one.state == "new"], data_dir, weights_dir)
    except ConfigError as error:
        problems += error.problems
        network_bytes = 0
    clock, jobs = Clock(standings), _jobs(limits, runs[0].config)
    seconds = clock.left_seconds(_shares(left), jobs)
    if seconds is not None and seconds > 3600 * MANY_HOURS and not limits.yes:
        problems.append(f"{_runs(len(left))} take about {duration(seconds)}; add --yes to start them")
    if problems:
        raise ConfigError(problems)
    for one in left:
        ledger.gaps.pop(one.run.cell.folder.name, None)
    bytes_left = _bytes_left(standings, left, network_bytes)
    everywhere = limits.cluster and limits.jobs is None
    return Agenda(ledger, standings, left, lasting, clock, jobs, bytes_left, everywhere)


def recorded(study: Study, folder: Path, data_dir: Path | None = None) -> StudyRuns:
    """Return a study as recorded in its folder, under the current study file: a new title, baseline or target applies.

    Raises ConfigError for a study file with mistakes, RunError if none of its runs has been started.
    """
    ledger = Ledger(folder, study, expand(study, folder / RUNS, data_dir=data_dir))
    ledger.read_gaps()
    return ledger.as_it_stands()


def _ledger(study: Study, folder: Path, standings: Sequence[Standing]) -> Ledger:
    """Return the study's ledger with the recorded gaps, except those of runs that have finished since."""
    ledger = Ledger(folder, study, [one.run for one in standings])
    if (folder / FILE_NAME).exists():
        ledger.read_gaps()
    open_ones = {one.run.cell.folder.name for one in standings if one.state != "finished"}
    ledger.gaps = {name: gap for name, gap in ledger.gaps.items() if name in open_ones}
    return ledger


def _is_chosen(run: PlannedRun, only: str | None) -> bool:
    names = (run.cell.variant, run.label, run.cell.folder.name)
    return only is None or any(fnmatchcase(name.lower(), only.lower()) for name in names)


def _jobs(limits: Limits, config: RunConfig) -> int:
    return limits.jobs or max(1, cpus_here() // config.compute.threads)


def _shares(left: Sequence[Standing]) -> list[tuple[str, float]]:
    return [(one.run.cell.variant, 1.0 - one.share) for one in left]


def _bytes_left(standings: Sequence[Standing], left: Sequence[Standing], network_bytes: int) -> int | None:
    """Return the bytes on disk that the new runs will need, from finished runs or else from their network's size."""
    done = [bytes_of(one.run.cell.folder) for one in standings if one.state == "finished"][:LISTED]
    each = (
        sum(done) / len(done) if done else 3 * network_bytes
    )  # saved before the first round and after each of the last two
    new = sum(one.state == "new" for one in left)
    return round(each * new) if each else None


def _ask(study: Study, folder: Path, limits: Limits) -> None:
    """Raise ConfigError with an estimate of the time and disk space that a very large grid would take."""
    there = (folder / RUNS).iterdir() if (folder / RUNS).is_dir() else iter(())
    sizes = [bytes_of(one) for _, one in zip(range(LISTED), there, strict=False)]
    total, jobs = count(study), limits.jobs or cpus_here()
    hours = duration(total * ASSUMED_SECONDS / jobs)
    disk = format_bytes(total * max(sizes)) if sizes else f"{format_bytes(total * 1024**2)} at 1 MiB a run"
    raise ConfigError(
        f"the grid has {total:,} runs: {hours} by {jobs} at once if a run takes {ASSUMED_SECONDS:.0f} s, and {disk} "
        "of disk; add --yes to start them, or remove values from the grid"
    )


def _free(folder: Path) -> int | None:
    there = next((one for one in (folder, *folder.resolve().parents) if one.exists()), None)
    return None if there is None else shutil.disk_usage(there).free


def _runs(number: int) -> str:
    return f"{number:,} run" if number == 1 else f"{number:,} runs"


def _some(names: Sequence[str]) -> str:
    return "; ".join(names[:LISTED]) + (f" and {len(names) - LISTED} more" if len(names) > LISTED else "")
