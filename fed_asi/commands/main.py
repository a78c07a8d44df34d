"""The command line: `fed-asi COMMAND`, with the commands below.

Exit codes: 0 success; 1 a round was lost, a device is unaccounted for or none trained; 2 an error that the user can
correct; 130 stopped by the user, and can be resumed.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import sys
import tempfile
import textwrap
import traceback
from collections.abc import Sequence
from difflib import get_close_matches
from importlib import import_module, metadata
from typing import Any, NoReturn

from fed_asi import own_code
from fed_asi.allocator import keep_freed_memory
from fed_asi.commands.console import (
    LOST,
    OK,
    STOPPED,
    USER_ERROR,
    bar,
    complain,
    speak_any_language,
    speaking,
)
from fed_asi.errors import ConfigError, FedAsiError, nearest

# A command NAME is fed_asi/commands/NAME.py, with _ for -: it has `add_arguments(parser)`, which calls `add_output`, an
# EXAMPLE of a line, and `main(given)`, which returns the exit code. It is tested by a line of WORDS in
# tests/commands/test_every_command.py.
COMMANDS = {
    "run": "simulate a fleet",
    "init": "start a project of your own",
    "study": "run many variants and compare them",
    "check": "check a fleet file: load all that it names and plan each group, but start nothing",
    "plan": "plan what fits in a budget",
    "report": "show a run's result again, and write its page",
    "watch": "show a run's page in the browser, live while the run goes on",
    "export": "write a run's records as CSV or Parquet",
    "compare": "say how two runs differ; exits 1 if they do",
    "compose": "write the docker-compose.yml of a fleet",
    "doctor": "say what this machine has, what is missing, and what to do",
    "calibrate-device": "measure how fast this machine trains, for a fleet's clock",
    "completion": "print a script for your shell that completes these commands with the Tab key",
}

EXAMPLE = """\
a first fleet, from nothing:
  fed-asi init my-fleet
  cd my-fleet
  fed-asi run fleet.toml

What every command does in detail: fed-asi COMMAND --help"""


class Parser(argparse.ArgumentParser):
    """A parser whose help fits the terminal and ends with an example, and whose errors are one line."""

    def __init__(self, **options: Any) -> None:
        super().__init__(allow_abbrev=False, formatter_class=argparse.RawDescriptionHelpFormatter, **options)

    def say(self, what: str | None, example: str) -> None:
        """Set the help's text before and after its options: paragraphs, and indented lines, which stay as they are."""
        most = max(40, shutil.get_terminal_size().columns - 2)
        paragraphs = (what or "").strip().split("\n\n")
        self.description = "\n\n".join(
            one if one.startswith(" ") else textwrap.fill(" ".join(one.split()), most, break_on_hyphens=False)
            for one in paragraphs
        )
        self.epilog = example

    def error(self, message: str) -> NoReturn:
        """Exit with an error of the command line, in one line that says where to look."""
        complain(f"{self.prog}: {message}; see {self.prog} --help")
        sys.exit(USER_ERROR)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code; errors are printed as lines, never as a traceback."""
    words = sys.argv[1:] if argv is None else list(argv)
    speak_any_language()
    keep_freed_memory()
    try:
        code = _command(words)
        sys.stdout.flush()  # here, where a reader that has gone is not an error
        return code
    except ConfigError as error:
        return _refuse(error.problems)
    except FedAsiError as error:
        return _refuse([str(error)])
    except KeyboardInterrupt:
        complain("fed-asi: stopped")
        return STOPPED
    except BrokenPipeError:  # the reader of our output is gone, as with `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return OK
    except Exception as error:
        return _own_mistake(error)


def _command(words: Sequence[str]) -> int:
    """Run one command and return its exit code; only its own module is imported."""
    if words and not words[0].startswith("-") and words[0] not in COMMANDS:
        raise ConfigError(f"no command {words[0]!r}; {nearest(words[0], COMMANDS)}")
    with speaking(argparse.Namespace(quiet="--quiet" in words)):
        parser = parser_of(words[:1])
    given, unknown = parser.parse_known_args(words)
    if unknown:
        raise ConfigError(_unknown(given.command, unknown[0]))
    with speaking(given):
        code: int = _module(given.command).main(given)
    return code


def parser_of(commands: Sequence[str], kind: type[Parser] = Parser) -> Parser:
    """Return the parser of the command line with the arguments of these commands, whose modules are imported."""
    parser = kind(prog="fed-asi")
    parser.say((sys.modules["fed_asi"].__doc__ or "").partition("\n")[0], EXAMPLE)
    parser.add_argument("--version", action="version", version=f"fed-asi {metadata.version('fed-asi')}")
    each = parser.add_subparsers(required=True, metavar="COMMAND", dest="command", parser_class=kind)
    for name, summary in COMMANDS.items():
        one = each.add_parser(name, help=summary)
        if name in commands:
            with bar("starting"):  # torch alone takes more than a second
                module = _module(name)
            one.say(module.__doc__, f"example:\n  {module.EXAMPLE}")
            module.add_arguments(one)
    return parser


def _unknown(command: str, word: str) -> str:
    """Return the message for a word that a command does not know."""
    alone = Parser(prog=command)
    _module(command).add_arguments(alone)
    near = get_close_matches(word, re.findall(r"--[\w-]+", alone.format_usage()), n=1)
    hint = f"did you mean {near[0]}?" if near else f"see fed-asi {command} --help"
    return f"{command}: no argument {word!r}; {hint}"


def _module(command: str) -> Any:
    return import_module(f"fed_asi.commands.{command.replace('-', '_')}")


def _refuse(problems: Sequence[str]) -> int:
    if len(problems) == 1:
        complain(f"fed-asi: {problems[0]}")
    else:
        complain(f"fed-asi: {len(problems)} problems")
        for problem in problems:
            complain(f"  {problem}")
    return USER_ERROR


def _details(error: Exception) -> str:
    """Return the file that an error's traceback was written to, or how to see it if none can be written."""
    lines = "".join(traceback.format_exception(error))
    try:
        with tempfile.NamedTemporaryFile(
            "w", prefix="fed-asi-", suffix=".txt", delete=False, encoding="utf-8", errors="backslashreplace"
        ) as file:
            file.write(lines)
    except OSError:
        return "no file, as none can be written; FED_ASI_DEBUG=1 shows them"
    return file.name


def _own_mistake(error: Exception) -> int:
    """Print whose error this is, ours or that of the user's own code, and keep the traceback to be sent."""
    if os.environ.get("FED_ASI_DEBUG"):
        raise error
    text = str(error).partition("\n")[0]
    whose = own_code.owner_of(error)
    complain(f"fed-asi: an error in {whose}: {type(error).__name__}: {text}; details in {_details(error)}")
    return LOST
