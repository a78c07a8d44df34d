"""Code that other processes are given as a text: no linter, type checker or import of a test reads it."""

from __future__ import annotations

import ast
import importlib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FILES = sorted(
    path
    for folder in ("fed_asi", "clients", "server", "deploy", "experiments", "tests")
    for path in (ROOT / folder).rglob("*.py")
)


def codes(tree: ast.AST) -> Iterator[ast.Module]:
    """Yield each text of a file that is itself Python with imports of ours."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and "import" in node.value:
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


FOUND = sorted(
    {
        (str(path.relative_to(ROOT)), module, name)
        for path in FILES
        for code in codes(ast.parse(path.read_text(encoding="utf-8")))
        for module, name in imported(code)
    }
)


def test_there_are_some() -> None:
    assert len(FOUND) > 5


@pytest.mark.parametrize(("file", "module", "name"), FOUND)
def test_what_they_import_is_there(file: str, module: str, name: str) -> None:
    found = importlib.import_module(module)
    if name and not hasattr(found, name):
        importlib.import_module(f"{module}.{name}")
