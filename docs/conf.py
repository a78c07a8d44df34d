"""How Sphinx makes the site of these pages: `make docs`. Every page is plain Markdown and can be read as it is.

The menu is index.md's own list of links; the API's page is a list of names, each of which becomes its docstring. A link
that leads nowhere, a page that index.md does not name and a public name without a docstring are warnings, and
`make docs` takes warnings for errors.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator, Sequence
from importlib import import_module
from typing import Any

from sphinx.application import Sphinx
from sphinx.util import logging

import fed_asi

project = "fed_asi"
author = "the fed_asi contributors"
version = release = fed_asi.__version__
html_title = f"fed_asi {release}"

extensions = ["myst_parser", "sphinx.ext.autodoc"]
source_suffix = {".md": "markdown"}
exclude_patterns = ["**/*.ipynb"]
html_theme = "furo"
html_copy_source = False
nitpicky = True
nitpick_ignore_regex = [
    ("py:.*", ".*")
]  # signatures name torch's and Python's types, which have pages elsewhere

myst_heading_anchors = 4  # links such as fleet_file.md#groups, as on a repository's page
suppress_warnings = ["myst.header"]  # tables of results begin at ###

autodoc_member_order = "bysource"
autodoc_typehints = "none"  # docstrings say what arguments are
autodoc_default_options = {"members": True, "undoc-members": True}
default_role = "code"

LOG = logging.getLogger(__name__)
LINK = re.compile(r"\]\(([\w/.-]+)\.md\)")
NAME = re.compile(r"^\* `(fed_asi[\w.]*)`.*$", re.M)
BEGINS = re.compile(r"\s*(?:[*-] |(?:Raises|Source|Yields) ?:? |[\w.`]+(?:, [\w.`]+)*: )")


def pages(_app: Sphinx, page: str, source: list[str]) -> None:
    """Add the menu to the index, and docstrings to the names of the API's page."""
    if page == "index":
        source[0] += menu(source[0])
    elif page == "reference/api":
        source[0] = NAME.sub(lambda found: directive(found[1]), source[0])


def menu(text: str) -> str:
    """Return a table of contents for each heading of the index that has links."""
    parts = re.findall(r"^## (.*?)\n(.*?)(?=^## |\Z)", text, flags=re.M | re.S)
    lists = {title: "\n".join(dict.fromkeys(LINK.findall(body))) for title, body in parts}
    shown = [(title, names) for title, names in lists.items() if names]
    return "".join(
        f"\n```{{toctree}}\n:hidden:\n:caption: {title}\n\n{names}\n```\n" for title, names in shown
    )


def directive(name: str) -> str:
    """Return what shows a name's docstring."""
    module, _, last = name.rpartition(".")
    found = getattr(import_module(module), last)
    kind = "class" if inspect.isclass(found) else "module" if inspect.ismodule(found) else "function"
    return f"```{{eval-rst}}\n.. auto{kind}:: {name}\n```\n"


def docstring(_app: Sphinx, kind: str, name: str, _what: Any, _options: Any, lines: list[str]) -> None:
    """Write a docstring as reStructuredText; of a public name there has to be one."""
    if not any(line.strip() for line in lines) and not any(part.startswith("_") for part in name.split(".")):
        LOG.warning("%s %s has no docstring", kind, name)
    lines[:] = [line for part in paragraphs(lines) for line in (*part, "")]


def paragraphs(lines: Sequence[str]) -> Iterator[list[str]]:
    """Yield a docstring's paragraphs; arguments and bullets become a list, what is set off stays as it is."""
    for block in "\n".join(lines).strip("\n").split("\n\n"):
        rows = block.splitlines()
        if rows and all(row.startswith("    ") for row in rows):
            yield ["::", "", *rows]
            continue
        for item in items(rows):
            yield [escaped(item)]


def items(rows: Sequence[str]) -> Iterator[str]:
    """Yield a paragraph's sentences, and each argument or bullet of it, as one line each."""
    item = ""
    for row in rows:
        if BEGINS.match(row) and item:
            yield item
            item = ""
        item = f"{item} {row.strip()}".strip()
    if item:
        yield item


def escaped(text: str) -> str:
    """Return a line that means in reStructuredText what it says: only backquotes mark code."""
    argument = re.match(r"([\w.]+(?:, [\w.]+)*): ", text)
    bullet = "* " if argument or text.startswith(("* ", "- ")) else ""
    text = text[2:] if text.startswith(("* ", "- ")) else text
    pieces = re.split(r"(``.*?``|`[^`]*`)", text)
    pieces[::2] = [re.sub(r"([*|\\]|(?<=\w)_(?!\w))", r"\\\1", piece) for piece in pieces[::2]]
    return bullet + "".join(pieces)


def skipped(_app: Sphinx, _kind: str, _name: str, what: Any, skip: bool, _options: Any) -> bool:
    """Leave out fields: their class says what they are."""
    return skip or not (inspect.isroutine(what) or inspect.isclass(what) or isinstance(what, property))


def setup(app: Sphinx) -> None:
    """Connect the functions above."""
    app.connect("source-read", pages)
    app.connect("autodoc-process-docstring", docstring)
    app.connect("autodoc-skip-member", skipped)
