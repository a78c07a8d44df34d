"""What all commands, found by their files, have in common: help, --quiet, --json, colours, and lines that fit.

A new command gets a line in WORDS: arguments for a folder with made-up runs, where nothing takes long.
"""

from __future__ import annotations

import io
import json
import re
import shlex
import signal
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from functools import cache
from http.server import ThreadingHTTPServer
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from rich.cells import cell_len

from fed_asi.commands import calibrate_device, check, doctor, run, study
from fed_asi.commands.main import COMMANDS, main, parser_of
from fed_asi.errors import ConfigError
from fed_asi.fleets.resources import Resources
from fed_asi.results.figures import Picture
from fed_asi.results.schema import DeviceRoundRecord, RoundRecord
from fed_asi.results.store import RunStore
from fed_asi.studies.figures import Pictures
from fed_asi.workplace.ahead import Ahead
from made_rates import steps
from made_run import make
from study_files import MadeUp, write_study

FOLDER = Path(run.__file__).parent
FOUND = sorted(
    path.stem.replace("_", "-")
    for path in FOLDER.glob("*.py")
    if re.search(r"^def add_arguments\(", path.read_text(), re.MULTILINE)
)
WORDS = {
    "calibrate-device": "--out mine.toml",
    "check": "fleet.toml",
    "compare": "runs/a runs/a",
    "completion": "bash",
    "compose": "fleet.toml --memory '16 GiB' --out compose.yml",
    "doctor": "",
    "export": "runs/a --to csv",
    "init": "new-{way}",
    "plan": "--model tiny --weights none --resolution 16 --last 2 --micro-batch 1 --profile profile.json "
    "--budget '300 B' --device stm32f746",
    "report": "runs/a runs/b",
    "run": "fleet.toml",
    "study": "study.toml --out {way}",
    "watch": "runs --port 0",
}
PROGRAMS = {"completion"}  # print one for a shell: never folded, and not as JSON
STYLES = re.compile(r"\x1b\[[\d;]*m")


class Screen(io.StringIO):
    """The output of a terminal."""

    def isatty(self) -> bool:
        return True


@dataclass(frozen=True)
class Done:
    """What a command came to."""

    code: int
    out: str
    err: str


@pytest.fixture(scope="module")
def _folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A folder with a fleet file, a study file and runs; what takes long is stood in for."""
    home = write_study(tmp_path_factory.mktemp("commands")).parent
    for name in ("a", "b"):
        make(home / "runs" / name)
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)
        _stand_in(patch)
        yield
    done.cache_clear()
    for number, handler in handlers.items():
        signal.signal(number, handler)


def _stand_in(patch: pytest.MonkeyPatch) -> None:
    def back_end(config: Any, folder: Path, *, watcher: Any, **_options: Any) -> None:
        with RunStore.create(folder, config) as store:
            store.add_round(RoundRecord(1, 3, 1, 0.5, 0.9), [DeviceRoundRecord(1, 0, "trained")])
            watcher.round_done(RoundRecord(1, 3, 1, 0.5, 0.9))
            store.set_status("finished")
            print("said by code of the user's own")

    patch.setattr(run, "backend_of", lambda _name: back_end)
    patch.setattr(study, "_workers", lambda _found, _given: MadeUp())
    patch.setattr(
        "fed_asi.results.figures.draw", lambda _summaries: {"Accuracy over rounds": Picture(b"png")}
    )
    patch.setattr("fed_asi.studies.report.draw", lambda _found: Pictures((), (), (), (), ()))
    nobody = Ahead(
        "a", 3, 1, Resources(2048, 8), 8, None, cause="budget 2.0 KiB is below the smallest plan (4 KiB)"
    )
    patch.setattr(check, "look_ahead", lambda *_args, **_dirs: [nobody])
    patch.setattr(calibrate_device, "measure", steps)
    patch.setattr("fed_asi.commands.plan.EXAMPLES", 4)
    patch.setattr(doctor, "check_engine", _no_engine)
    patch.setattr(ThreadingHTTPServer, "serve_forever", _ctrl_c)


def _no_engine() -> None:
    raise ConfigError("no container engine here: install Docker")


def _ctrl_c(_server: ThreadingHTTPServer) -> None:
    raise KeyboardInterrupt


@cache
def done(name: str, way: str, *options: str) -> Done:
    """Return what a command comes to: in a terminal of 80 columns without colours, or in a pipe."""
    stream = Screen if way == "terminal" else io.StringIO
    out, err = stream(), stream()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COLUMNS", "80")
        patch.setenv("TERM", "xterm-256color")
        patch.setenv("NO_COLOR", "1" if way == "terminal" else "")
        with redirect_stdout(out), redirect_stderr(err):
            code = main([name, *shlex.split(WORDS[name].format(way=way)), *options])
    return Done(code, out.getvalue(), err.getvalue())


def test_a_command_is_a_file_a_name_and_a_line_above() -> None:
    assert sorted(COMMANDS) == FOUND == sorted(WORDS)


@pytest.mark.usefixtures("_folder")
@pytest.mark.parametrize("name", FOUND)
class TestEvery:
    """Every command."""

    def test_lines_fit_eighty_columns_and_nothing_is_coloured(self, name: str) -> None:
        found = done(name, "terminal")
        assert found.out
        assert not STYLES.search(found.out + found.err)
        if name not in PROGRAMS:
            assert [line for line in found.out.splitlines() if cell_len(line) > 80] == []

    def test_quiet_leaves_the_result_alone(self, name: str) -> None:
        if name in PROGRAMS:
            return
        found = done(name, "quiet", "--quiet")
        assert found.err == ""
        assert found.out
        assert "\x1b" not in found.out

    def test_json_is_one_document(self, name: str) -> None:
        if name in PROGRAMS:
            return
        found = done(name, "json", "--json")
        assert json.loads(found.out)["version"] == 1
        assert "\x1b" not in found.out + found.err

    def test_help_fits_and_has_an_example_that_can_be_typed(
        self, name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("COLUMNS", "80")
        with pytest.raises(SystemExit, match="0"):
            main([name, "--help"])
        text = capsys.readouterr().out
        example = import_module(f"fed_asi.commands.{name.replace('-', '_')}").EXAMPLE
        assert text.endswith(f"example:\n  {example}\n")
        assert max(map(len, text.splitlines())) <= 80
        words = shlex.split(re.sub(r'^eval "\$\((.*)\)"$', r"\1", example))
        assert words[:2] == ["fed-asi", name]
        assert parser_of([name]).parse_args(words[1:]).command == name


@pytest.mark.usefixtures("_folder")
def test_a_run_says_more_where_it_may() -> None:
    assert "1 of 3 devices trained" in done("run", "json", "--json").err
    assert "said by code of the user's own" in done("run", "json", "--json").err
    assert json.loads(done("run", "json", "--json").out)["rounds"][0]["trained"] == 1


def test_the_help_of_all_fits_and_has_an_example(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit, match="0"):
        main(["--help"])
    text = capsys.readouterr().out
    assert "  fed-asi init my-fleet\n" in text
    assert max(map(len, text.splitlines())) <= 80


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["rnu"], "fed-asi: no command 'rnu'; did you mean run?"),
        (["plan", "--bugdet", "1 KiB"], "fed-asi: plan: no argument '--bugdet'; did you mean --budget?"),
        (["plan", "--xyzzy"], "fed-asi: plan: no argument '--xyzzy'; see fed-asi plan --help"),
    ],
)
def test_a_word_that_is_none_is_one_line_with_what_to_type(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == 2
    assert capsys.readouterr() == ("", f"{said}\n")


def test_a_value_that_is_missing_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["export", "runs/demo"])
    said = capsys.readouterr().err
    assert said == "fed-asi export: the following arguments are required: --to; see fed-asi export --help\n"
