"""What commands that read a fleet file have in common."""

from __future__ import annotations

import argparse
from pathlib import Path

from fed_asi.commands.fleet_arguments import add_folders, add_overrides


def test_folders_are_paths_and_overrides_a_list() -> None:
    parser = argparse.ArgumentParser()
    add_folders(parser)
    add_overrides(parser)
    plain, given = (
        parser.parse_args([]),
        parser.parse_args(["--data-dir", "d", "--set", "a=1", "--set", "b=2"]),
    )
    assert (plain.data_dir, plain.weights_dir, plain.set) == (None, None, [])
    assert (given.data_dir, given.set) == (Path("d"), ["a=1", "b=2"])
