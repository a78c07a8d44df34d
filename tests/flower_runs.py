"""Small runs on Flower and Ray, in processes of their own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from runs import small

ROOT = Path(__file__).parents[1]


def flower(folder: Path, resume: bool = False, **changes: object) -> None:
    """Do a run in a process of its own, as Ray wants a driver to be, and leave nothing behind."""
    (folder.parent / f"{folder.name}.json").write_text(small(**changes).to_json())
    code = (
        "import sys, pathlib; from fed_asi.fleets.config import RunConfig\n"
        "from fed_asi.flower.simulation import run_flower\n"
        "folder = pathlib.Path(sys.argv[1])\n"
        "text = (folder.parent / f'{folder.name}.json').read_text()\n"
        "run_flower(RunConfig.from_json(text), folder, resume=sys.argv[2] == 'True')\n"
    )
    subprocess.run([sys.executable, "-c", code, str(folder), str(resume)], check=True, cwd=ROOT, timeout=550)
