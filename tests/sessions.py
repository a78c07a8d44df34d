"""The terminal sessions of a page: writes its files, runs its commands, and puts their outputs in place.

    python tests/sessions.py docs/tutorial/getting_started.md

writes the page's outputs anew. A block of TOML, Python or CSV whose first line is `# NAME.toml` becomes that file.
In a block of `console`, a line that begins with `$ ` is a command; the lines up to the next command are what it
printed.
Numbers that may differ on another machine are compared as numbers of any value.
"""

from __future__ import annotations

import contextlib
import io
import re
import shlex
import sqlite3
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from fed_asi.commands.main import main

BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.M | re.S)
FILE = re.compile(r"# ([\w.-]+\.(?:toml|py|csv))$", re.M)
# Seconds, shares, sizes and checksums depend on the processor, its clock and the last bits.
LOOSE = re.compile(r"\d+(?:\.\d+)? ?(?=%|s\b|B\b)|\d+\.\d+|\d+e-\d+|\b[0-9a-f]{12}\b|[+-](?=\d)")


def played(text: str, folder: Path) -> str:
    """Return a page's text with the outputs that its commands print in a folder, which is the working one."""
    return BLOCK.sub(lambda found: f"```{found[1]}\n{_block(found[1], found[2], folder)}```", text)


def _block(kind: str, body: str, folder: Path) -> str:
    name = FILE.match(body)
    if name:
        (folder / name[1]).write_text(body)
    return "".join(_session(body)) if kind == "console" else body


def _session(body: str) -> Iterator[str]:
    for line in body.splitlines():
        if line.startswith("$ "):
            yield f"{line}\n"
            yield printed(line.removeprefix("$ "))


def printed(command: str) -> str:
    """Return what one command prints; fed-asi's own and sqlite3's are known."""
    words = shlex.split(command, comments=True)
    if words[0] == "sqlite3":
        with contextlib.closing(sqlite3.connect(words[1])) as records:
            rows = records.execute(words[2]).fetchall()
        return "".join("|".join("" if cell is None else str(cell) for cell in row) + "\n" for row in rows)
    assert words[0] == "fed-asi", command
    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
        main(words[1:])
    return "".join(f"{line.rstrip()}\n" for line in out.getvalue().splitlines())


def loosened(text: str) -> list[str]:
    """Return a page's words without what may differ between machines: some numbers, and where lines are broken."""
    return re.sub(r"[─━]+", " ", LOOSE.sub("#", text)).split()


if __name__ == "__main__":
    page = Path(sys.argv[1]).resolve()
    with tempfile.TemporaryDirectory() as place, contextlib.chdir(place):
        page.write_text(played(page.read_text(), Path(place)))
