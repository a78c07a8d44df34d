"""`fed-asi completion`: print the script that lets bash or zsh complete commands, options and files with the Tab key.

The example applies to this shell alone. For all shells, write the script to the file that the shell looks for (for zsh
in a folder of its $fpath):

  DIR=~/.local/share/bash-completion/completions
  mkdir -p $DIR && fed-asi completion bash > $DIR/fed-asi
  fed-asi completion zsh > FOLDER/_fed-asi
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import shtab

from fed_asi.commands.console import OK
from fed_asi.commands.main import COMMANDS, Parser, parser_of

SHELLS = ("bash", "zsh")
FOLDERS = ("FOLDER", "RUN")  # metavars of arguments that are folders; other paths are files
EXAMPLE = 'eval "$(fed-asi completion bash)"'


class _Completed(Parser):
    """A parser that knows which of its arguments a shell completes with files or folders."""

    def add_argument(self, *names: Any, **options: Any) -> argparse.Action:
        """Add an argument, with the kind of path that completes it, if it is a path."""
        action = super().add_argument(*names, **options)
        if action.type is Path:
            action.complete = shtab.DIRECTORY if action.metavar in FOLDERS else shtab.FILE  # type: ignore[attr-defined]
        return action

    def say(self, what: str | None, example: str) -> None:
        """Set the description that a shell shows beside a command: its line in the list of commands."""
        super().say(COMMANDS.get(self.prog.rpartition(" ")[2], what), example)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("shell", choices=SHELLS, help="the shell that completes")


def main(given: argparse.Namespace) -> int:
    """Print the shell's completion script and return the exit code."""
    sys.stdout.write(shtab.complete(parser_of(list(COMMANDS), _Completed), shell=given.shell))
    return OK
