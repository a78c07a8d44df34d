"""Code that is passed to other processes as text, which no linter, type checker or import of a test reads."""

from __future__ import annotations

import ast
import importlib
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
FILES = sorted(
    path
    for folder in ("fed_asi", "clients", "server", "deploy", "experiments", "tests")
    for path in (ROOT / folder).rglob("*.py")
)
OURS = re.compile(r"\b(import|from) +fed_asi\b")
# Parsing every file takes seconds: only those with such a line behind something else, or with a text over many lines.
LIKELY = re.compile(
    r"^[ \t]*\S.*\b(import|from) +fed_asi\b|([=(\[{,+]|return)\s*[rf]?(\"{3}|'{3})", re.MULTILINE
)


def codes(tree: ast.AST) -> Iterator[ast.Module]:
    """Yield each text of a file that is itself Python with imports of ours."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and OURS.search(node.value):
            try:
                yield ast.parse(node.value)
            except SyntaxError:
                continue


def imported(tree: ast.AST) -> Iterator[tuple[str, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "fed_asi":
            yield from ((node.module or "", alias.name) for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from ((alias.name, "") for alias in node.names if alias.name.startswith("fed_asi."))


def test_what_they_import_is_there() -> None:
    found = {
        (str(path.relative_to(ROOT)), module, name)
        for path in FILES
        if LIKELY.search(text := path.read_text(encoding="utf-8"))
        for code in codes(ast.parse(text))
        for module, name in imported(code)
    }
    assert len(found) > 5
    assert [one for one in sorted(found) if not is_there(*one[1:])] == []


def is_there(module: str, name: str) -> bool:
    try:
        if not (name and hasattr(importlib.import_module(module), name)):
            importlib.import_module(f"{module}.{name}" if name else module)
    except ImportError:
        return False
    return True
