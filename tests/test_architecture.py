"""The shape of the package: imports run downward, and only the Flower apps know Flower."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# From the bottom up: a module may import from its own line and from those above it in this list.
ORDER = [
    "errors units seeds",
    "tucker",
    "methods",
    "layers",
    "meter graph memory",
    "tune compression compression_report",
    "counting costs",
    "knapsack profiles plans candidates trials floors calibration planner plan_report",
    "models data plan_command checkpointing",
    "fleet config config_checks config_file compose",
    "sqlite_file runlock schedule",
    "records",
    "progress",
    "sgd aggregate checkpoint evaluation pretraining device_plans steps",
    "workplace federated_calibration",
    "prepare local",
    "replies",
    "rounds",
    "summary compare figures report_table report_html report",
    "cli",
]
LEVEL = {name: level for level, line in enumerate(ORDER) for name in line.split()}


def modules(folder: str) -> list[Path]:
    return sorted((ROOT / folder).rglob("*.py"))


def top_level_imports(path: Path) -> Iterator[str]:
    """Names of the modules imported when `path` is, so neither in functions nor for type checkers."""
    waiting: list[ast.AST] = [ast.parse(path.read_text())]
    while waiting:
        node = waiting.pop()
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            continue
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or ""
            if node.module == "fed_asi":
                yield from (f"fed_asi.{alias.name}" for alias in node.names)
        waiting.extend(ast.iter_child_nodes(node))


def all_imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or ""


@pytest.mark.parametrize("path", modules("fed_asi"), ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_run_downward(path: Path) -> None:
    part = path.relative_to(ROOT / "fed_asi").parts[0].removesuffix(".py")
    if part == "__init__":
        return
    assert part in LEVEL, f"give {part} its line in ORDER"
    for name in top_level_imports(path):
        pieces = name.split(".")
        if pieces[0] == "fed_asi" and len(pieces) > 1:
            assert LEVEL[pieces[1]] <= LEVEL[part], (
                f"{part} must not import {pieces[1]}, which stands above it"
            )


@pytest.mark.parametrize("path", modules("fed_asi"), ids=lambda p: str(p.relative_to(ROOT)))
def test_the_package_knows_no_flower(path: Path) -> None:
    roots = {name.split(".")[0] for name in all_imports(path)}
    assert not roots & {"flwr", "ray", "experiments"}


def test_the_apps_do_not_know_each_other() -> None:
    for folder, other in (("clients", "server"), ("server", "clients")):
        for path in modules(folder):
            roots = {name.split(".")[0] for name in top_level_imports(path)}
            assert other not in roots, f"{path.relative_to(ROOT)} imports {other}"


def test_import_is_free_of_flower_and_ray() -> None:
    heavy = ("flwr", "ray", "matplotlib", "sklearn")
    code = f"import sys, fed_asi; print(*(m for m in {heavy} if m in sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == ""


def test_no_machine_paths_and_no_neighbours() -> None:
    for folder in ("fed_asi", "clients", "server"):
        for path in modules(folder):
            text = path.read_text()
            assert "../shared" not in text, path
            assert f"{ROOT}/" not in text, path  # the parent alone may be the start of a container's path
