"""Arguments of the commands that read a fleet file: the folders of data and weights, and changed keys."""

from __future__ import annotations

import argparse
from pathlib import Path


def add_folders(parser: argparse.ArgumentParser) -> None:
    """Add the folders of data and weights; without them, environment variables and then downloads are used."""
    parser.add_argument(
        "--data-dir", type=Path, metavar="FOLDER", help="the data's folder; default: FED_ASI_DATA_DIR"
    )
    parser.add_argument(
        "--weights-dir", type=Path, metavar="FOLDER", help="the weights' folder; default: FED_ASI_WEIGHTS_DIR"
    )


def add_overrides(parser: argparse.ArgumentParser) -> None:
    """Add the option that changes keys of the fleet file for this one time; its value is a list of texts."""
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="change a key of the fleet file, such as train.lr=0.1; may be repeated",
    )
