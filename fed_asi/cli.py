"""The command line: `fed-asi run | plan | report | compare | compose`.

Exit codes: 0 all is well; 1 a round was lost or a device is unaccounted for; 2 the user can mend it;
130 stopped by the user, and to be resumed.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable, Sequence
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any, NoReturn

from rich.console import Console

from fed_asi.errors import ConfigError, FedAsiError, RunError

OK, LOST, USER_ERROR, STOPPED = 0, 1, 2, 130


def main(argv: Sequence[str] | None = None) -> int:
    """Return the exit code of one command; errors are printed as lines, never as a traceback."""
    words = sys.argv[1:] if argv is None else list(argv)
    try:
        return _command(words)
    except ConfigError as error:
        return _refuse(error.problems)
    except FedAsiError as error:
        return _refuse([str(error)])
    except KeyboardInterrupt:
        _say("fed-asi: stopped")
        return STOPPED
    except BrokenPipeError:  # the reader of our output has gone, as `| head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return OK
    except Exception as error:
        return _own_mistake(error)


def _command(words: Sequence[str]) -> int:
    if words[:1] == ["plan"]:
        from fed_asi import plan_report

        code: int = plan_report.main(words[1:])
        return code
    if words[:1] == ["compose"]:
        from fed_asi import compose

        return compose.main(words[1:])
    given = _parser().parse_args(words)
    do: Callable[[argparse.Namespace], int] = given.do
    return do(given)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="fed-asi", description=sys.modules["fed_asi"].__doc__, allow_abbrev=False
    )
    parser.add_argument("--version", action="version", version=f"fed-asi {metadata.version('fed-asi')}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _run_options(commands.add_parser("run", help="simulate a fleet", allow_abbrev=False))
    commands.add_parser("plan", help="plan what fits in a budget", add_help=False)
    report = commands.add_parser("report", help="show a run's result again, and write its page")
    report.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="a run's folder, such as runs/demo")
    report.add_argument("--out", type=Path, metavar="PAGE", help="the page; default: report.html in the run")
    report.set_defaults(do=_report)
    compare = commands.add_parser("compare", help="say how two runs differ; exits 1 where they do")
    compare.add_argument("runs", nargs=2, type=Path, metavar="RUN")
    compare.set_defaults(do=_compare)
    commands.add_parser("compose", help="write the docker-compose.yml of a fleet", add_help=False)
    return parser


def _run_options(run: argparse.ArgumentParser) -> None:
    run.add_argument("fleet", nargs="?", type=Path, metavar="FLEET.toml", help="the fleet file")
    run.add_argument("--out", type=Path, metavar="FOLDER", help="where runs are kept; default: runs")
    run.add_argument("--data-dir", type=Path, help="the data's folder; default: FED_ASI_DATA_DIR")
    run.add_argument("--weights-dir", type=Path, help="the weights' folder; default: FED_ASI_WEIGHTS_DIR")
    run.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="such as train.lr=0.1")
    run.add_argument("--backend", choices=("flower", "loop"), help="Flower on Ray, or one plain process")
    run.add_argument("--ray-address", metavar="ADDRESS", help="of a running Ray cluster")
    run.add_argument("--resume", type=Path, metavar="RUN", help="go on with a run that was stopped")
    run.set_defaults(do=_run)


def _run(given: argparse.Namespace) -> int:
    from fed_asi import report
    from fed_asi.progress import Terminal
    from fed_asi.records import RunStore

    config, folder = _resumed(given) if given.resume else _begun(given)
    signal.signal(signal.SIGTERM, _interrupt)
    signal.signal(signal.SIGINT, _interrupt)  # also where a shell started us in the background
    watch = Console(stderr=True)
    watch.print(f"run: {folder}", highlight=False)
    try:
        with Terminal(watch) as watcher:
            _backend(config.compute.backend)(
                config,
                folder,
                resume=given.resume is not None,
                data_dir=given.data_dir,
                weights_dir=given.weights_dir,
                watcher=watcher,
            )
    except KeyboardInterrupt:
        _say(f"stopped; go on with: fed-asi run --resume {folder}")
        if config.compute.backend == "flower":
            from server.simulation import leave

            leave(STOPPED)
        return STOPPED
    except FedAsiError as error:
        return _failed(error, folder, kept=given.resume is not None)
    report.show(folder, _console())
    page = report.write([folder])
    print(f"report: {page}")
    with RunStore.read(folder) as store:
        return store.exit_code()


def _begun(given: argparse.Namespace) -> tuple[Any, Path]:
    from fed_asi.config_file import load_config
    from fed_asi.runlock import new_folder

    if given.fleet is None:
        raise ConfigError("run: give a fleet file, or --resume RUN")
    overrides = list(given.set)
    overrides += [f"compute.backend={given.backend}"] if given.backend else []
    overrides += [f"compute.ray_address={given.ray_address}"] if given.ray_address else []
    config = load_config(given.fleet, overrides)
    out = given.out or Path(os.environ.get("FED_ASI_RUNS_DIR", "runs"))
    return config, new_folder(out, config.name)


def _resumed(given: argparse.Namespace) -> tuple[Any, Path]:
    """Return the settings the run was started with; only where it runs may change."""
    from fed_asi.config_checks import check
    from fed_asi.records import RunStore

    if given.fleet is not None or given.set or given.out is not None:
        raise ConfigError(
            "run: --resume takes the settings of the run; leave out FLEET.toml, --set and --out"
        )
    with RunStore.read(given.resume) as store:
        config, folder = store.config(), store.folder
    changes = {"backend": given.backend, "ray_address": given.ray_address}
    compute = config.compute.model_copy(update={key: value for key, value in changes.items() if value})
    config = config.model_copy(update={"compute": compute})
    problems = check(config)
    if problems:
        raise ConfigError(problems)
    return config, folder


def _backend(name: str) -> Callable[..., None]:
    if name == "loop":
        from fed_asi.rounds import run_loop

        return run_loop
    from server.simulation import run_flower

    return partial(run_flower, hasty=True)


def _failed(error: FedAsiError, folder: Path, kept: bool) -> int:
    """Print why a run stopped. Where it had not begun its rounds, its folder goes, and its name is free."""
    from fed_asi.records import RunStore

    try:
        with RunStore.read(folder) as store:
            kept = kept or bool(store.rounds())
    except RunError:
        pass  # not even its records could be made
    if not kept:
        shutil.rmtree(folder, ignore_errors=True)
        raise error
    _say(f"fed-asi: {error}\nwhat was recorded is kept; go on with: fed-asi run --resume {folder}")
    return LOST


def _report(given: argparse.Namespace) -> int:
    from fed_asi import report

    console = _console()
    for folder in given.runs:
        report.show(folder, console)
    print(f"report: {report.write(given.runs, given.out)}")
    return OK


def _compare(given: argparse.Namespace) -> int:
    from fed_asi.compare import compare

    comparison = compare(*given.runs)
    print("\n".join(comparison.lines))
    return OK if comparison.equal else LOST


def _console() -> Console:
    """Return the terminal, or where there is none lines long enough for the whole table."""
    return Console() if sys.stdout.isatty() else Console(width=132)


def _interrupt(_signal: int, _frame: object) -> NoReturn:
    raise KeyboardInterrupt


def _refuse(problems: Sequence[str]) -> int:
    if len(problems) == 1:
        _say(f"fed-asi: {problems[0]}")
    else:
        _say(f"fed-asi: {len(problems)} problems\n" + "\n".join(f"  {problem}" for problem in problems))
    return USER_ERROR


def _own_mistake(error: Exception) -> int:
    """Print that this is our mistake, not the user's, and keep the traceback where it can be sent from."""
    if os.environ.get("FED_ASI_DEBUG"):
        raise error
    with tempfile.NamedTemporaryFile("w", prefix="fed-asi-", suffix=".txt", delete=False) as file:
        traceback.print_exception(error, file=file)
    text = str(error).partition("\n")[0]
    _say(f"fed-asi: a mistake of this program: {type(error).__name__}: {text}; details in {file.name}")
    return LOST


def _say(text: str) -> None:
    print(text, file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
