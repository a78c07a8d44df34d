"""The command line: `fed-asi COMMAND`, with the commands below.

Exit codes: 0 all is well; 1 a round was lost, a device is unaccounted for or none trained; 2 the user can mend it;
130 stopped by the user, and to be resumed.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import traceback
from collections.abc import Sequence
from importlib import import_module, metadata
from typing import Any

from fed_asi import own_code
from fed_asi.commands.console import LOST, OK, STOPPED, USER_ERROR, bar, say, speak_any_language
from fed_asi.errors import ConfigError, FedAsiError

# A command NAME is fed_asi/commands/NAME.py, with _ for -: it has `add_arguments(parser)`, and `main(given)`, which
# returns the exit code.
COMMANDS = {
    "run": "simulate a fleet",
    "init": "begin a project of your own",
    "study": "do many runs, and say what differs",
    "check": "load all that a fleet file names, plan each group, start nothing",
    "plan": "plan what fits in a budget",
    "report": "show a run's result again, and write its page",
    "watch": "show a run's page in the browser, live while the run goes on",
    "export": "write a run's records as CSV or Parquet",
    "compare": "say how two runs differ; exits 1 where they do",
    "compose": "write the docker-compose.yml of a fleet",
    "doctor": "say what this machine has, what is missing, and what to do",
    "calibrate-device": "measure how fast this machine trains, for a fleet's clock",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Return the exit code of one command; errors are printed as lines, never as a traceback."""
    words = sys.argv[1:] if argv is None else list(argv)
    speak_any_language()
    try:
        code = _command(words)
        sys.stdout.flush()  # now, while a reader that has gone is no mistake
        return code
    except ConfigError as error:
        return _refuse(error.problems)
    except FedAsiError as error:
        return _refuse([str(error)])
    except KeyboardInterrupt:
        say("fed-asi: stopped")
        return STOPPED
    except BrokenPipeError:  # the reader of our output has gone, as `| head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return OK
    except Exception as error:
        return _own_mistake(error)


def _command(words: Sequence[str]) -> int:
    """Do one command; only its own module is imported."""
    parser = argparse.ArgumentParser(
        prog="fed-asi", description=sys.modules["fed_asi"].__doc__, allow_abbrev=False
    )
    parser.add_argument("--version", action="version", version=f"fed-asi {metadata.version('fed-asi')}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND", dest="command")
    for name, summary in COMMANDS.items():
        one = commands.add_parser(name, help=summary, allow_abbrev=False)
        if name in words[:1]:
            with bar("starting"):  # torch alone takes more than a second
                module = _module(name)
            one.description = module.__doc__
            module.add_arguments(one)
    given = parser.parse_args(words)
    code: int = _module(given.command).main(given)
    return code


def _module(command: str) -> Any:
    return import_module(f"fed_asi.commands.{command.replace('-', '_')}")


def _refuse(problems: Sequence[str]) -> int:
    if len(problems) == 1:
        say(f"fed-asi: {problems[0]}")
    else:
        say(f"fed-asi: {len(problems)} problems")
        for problem in problems:
            say(f"  {problem}")
    return USER_ERROR


def _details(error: Exception) -> str:
    """Return the file that an error's traceback was written to, or how to see it where none can be written."""
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
    """Print whose mistake this is, ours or a user's own code's, and keep the traceback where it can be sent from."""
    if os.environ.get("FED_ASI_DEBUG"):
        raise error
    text = str(error).partition("\n")[0]
    whose = own_code.owner_of(error)
    say(f"fed-asi: a mistake of {whose}: {type(error).__name__}: {text}; details in {_details(error)}")
    return LOST
