"""`fed-asi init`: create a project with a fleet file, a network and images, ready to run."""

from __future__ import annotations

import argparse
from pathlib import Path

from fed_asi.commands.console import OK, add_output, answer, hint, show
from fed_asi.errors import ConfigError
from fed_asi.files import write_text
from fed_asi.fleets.config import folder_name
from fed_asi.texts import command_line, visible

FILES = Path(__file__).parent / "project"  # NAME.in is written as NAME, with the word NAME in it replaced

NEXT = ("cd FOLDER", "fed-asi check fleet.toml", "fed-asi run fleet.toml")
EXAMPLE = "fed-asi init my-fleet"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="the project's folder, which is created")
    add_output(parser)


def main(given: argparse.Namespace) -> int:
    """Write the project, print what to do next, and return the exit code.

    Raises ConfigError if one of its files exists already, or if the folder's name cannot be the name of a run.
    """
    folder: Path = given.folder
    try:
        name = folder_name(folder.absolute().name)
    except ValueError as error:
        raise ConfigError(str(error)) from None
    files = {path.stem: path for path in sorted(FILES.glob("*.in"))}
    there = [file for file in files if (folder / file).exists()]
    if there:
        raise ConfigError(f"{visible(folder)} has {', '.join(there)} already: name a new folder")
    for file, path in files.items():
        write_text(folder / file, path.read_text(encoding="utf-8").replace("NAME", name))
    show(f"{visible(folder)}: {', '.join(files)}")
    hint("next:")
    for line in NEXT:
        hint(f"  {line.replace('FOLDER', command_line([folder]))}")
    hint("or with Flower's own command, which otherwise reinstalls the project's requirements for every run:")
    hint("  export FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION=1")
    hint("  flwr run . --federation-config 'num-supernodes=8 client-resources-num-cpus=1'")
    answer(folder=folder, files=list(files))
    return OK
