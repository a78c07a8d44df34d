"""`fed-asi study`: many runs as one comparison, from a study file; the same command continues where it stopped."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING

from fed_asi.commands.console import (
    LOST,
    OK,
    STOPPED,
    add_output,
    answer,
    bar,
    beside,
    complain,
    console,
    say,
    show,
    stop_on_signals,
)
from fed_asi.commands.fleet_arguments import add_folders
from fed_asi.errors import ConfigError, FedAsiError, RunError
from fed_asi.texts import command_line, visible

if TYPE_CHECKING:
    from fed_asi.studies.agenda import Agenda
    from fed_asi.studies.cells import StudyRuns
    from fed_asi.studies.workers import Workers

EXAMPLE = "fed-asi study study.toml --jobs 2"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("study", type=Path, metavar="STUDY.toml", help="the study file (docs/howto/study.md)")
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="where studies are kept; default: runs")
    parser.add_argument(
        "--only",
        metavar="PATTERN",
        help="start only the runs whose variant or folder matches: 'asi*', '*seed-0'",
    )
    parser.add_argument("--dry-run", action="store_true", help="check everything, list the runs, start none")
    parser.add_argument(
        "--jobs", type=int, metavar="N", help="how many runs at one time; default: one for each CPU"
    )
    parser.add_argument("--yes", action="store_true", help="start without asking, however long it takes")
    parser.add_argument("--retry", action="store_true", help="repeat the runs that failed")
    parser.add_argument(
        "--report", action="store_true", help="write the report of the finished runs, and start none"
    )
    parser.add_argument(
        "--results",
        type=Path,
        metavar="FOLDER",
        help="write the report's Markdown, figures and CSV there as well",
    )
    add_folders(parser)
    parser.add_argument(
        "--ray-address",
        metavar="ADDRESS",
        help="use the Ray cluster that is running there; its nodes must all see --out under the same path",
    )
    add_output(parser)


def main(given: argparse.Namespace) -> int:
    """Do the remaining runs, write the report, and return the exit code: 1 if there are gaps."""
    with bar("starting"):
        from fed_asi.studies.study_file import load_study

    if given.jobs is not None and given.jobs < 1:
        raise ConfigError(f"--jobs: {given.jobs} runs at once; at least 1")
    study = load_study(given.study)
    folder = (given.out or Path(os.environ.get("FED_ASI_RUNS_DIR", "runs"))) / study.name
    from fed_asi.studies.agenda import Limits, agenda, recorded

    if given.report:
        return _report(recorded(study, folder, given.data_dir), folder, given)
    limits = Limits(given.only, given.jobs, given.yes, given.retry, given.ray_address is not None)
    with bar("checking every run"):
        found = agenda(study, folder, limits, given.data_dir, given.weights_dir)
    for line in found.lines():
        say(line)
    if given.dry_run:
        for line in found.listed():
            show(visible(line))
        answer(runs=found.listed_data())
        return OK
    return _done(found, given)


def _done(found: Agenda, given: argparse.Namespace) -> int:
    from fed_asi.results.lock import RunLock
    from fed_asi.studies.ledger import study_runs

    folder = found.ledger.folder
    stop_on_signals()
    _make(folder)
    lock = RunLock.take(folder)
    try:
        found.ledger.write()
        if found.left:
            _run(found, given)
    except KeyboardInterrupt:
        complain(f"stopped; go on with: {_again(given)}")
        return STOPPED
    except RunError as error:
        complain(f"fed-asi: {error}")
        complain(f"go on with: {_again(given)}")
        return LOST
    finally:
        lock.release()
    code = _report(study_runs(folder), folder, given)
    for line in found.gap_lines():
        complain(line)
    return LOST if found.gap_lines() else code


def _run(found: Agenda, given: argparse.Namespace) -> None:
    """Do the remaining runs, here or on a cluster."""
    from fed_asi.studies.runner import Runner

    runner = Runner(
        found.ledger, found.left, found.clock, found.jobs, given.data_dir, given.weights_dir, found.finished
    )
    runner.run(_workers(found, given), beside())
    found.ledger.write()


def _workers(found: Agenda, given: argparse.Namespace) -> Workers:
    if given.ray_address is not None:
        from fed_asi.studies.cluster import ClusterWorkers

        return ClusterWorkers(given.ray_address, given.jobs)
    from fed_asi.studies.workers import LocalWorkers

    return LocalWorkers(min(found.jobs, len(found.left)))


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"cannot make {folder}: {error.strerror}") from None


def _again(given: argparse.Namespace) -> str:
    """Return the command that continues a study, for people to copy."""
    words: list[object] = ["fed-asi", "study", given.study]
    for name in ("out", "jobs", "only", "data_dir", "weights_dir", "ray_address", "results"):
        value = getattr(given, name)
        words += [f"--{name.replace('_', '-')}", value] if value is not None else []
    return command_line([*words, *(["--yes"] if given.yes else [])])


def _line(given: argparse.Namespace) -> str:
    """Return the command that makes this report, for its readers, with placeholders for the folders of this machine."""
    words: list[object] = ["fed-asi", "study", given.study]
    words += ["--data-dir", "DATA"] if given.data_dir is not None else []
    words += ["--weights-dir", "WEIGHTS"] if given.weights_dir is not None else []
    return command_line(words)


def _report(runs: StudyRuns, folder: Path, given: argparse.Namespace) -> int:
    """Write the report of the runs that are finished, print where it is, and return the exit code."""
    from fed_asi.studies.findings import as_data, find
    from fed_asi.studies.report import write_report
    from fed_asi.studies.tables import text_table

    if all(cell.gap is not None for cell in runs.cells):
        complain(f"no run of {runs.name} is finished: there is no result to report yet")
        return LOST
    try:
        found = find(runs)
        console().print(text_table(found))
        with bar("drawing the report"):
            written = write_report(found, folder, _line(given), given.results)
        show(f"report: {visible(written[0])}")
        answer(**as_data(found), folder=folder, report=written[0])
        if given.results is not None:
            show(f"for documents: {visible(given.results / 'results.md')}")
    except FedAsiError as error:
        complain(f"fed-asi: the runs are done, but not their report: {error}")
        return LOST
    return OK
