"""The documents: every file they name exists, and none cites a page that does not."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# The changelog names what was; the licence is not ours.
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
]
SOURCES = sorted(
    path
    for folder in ("fed_asi", "clients", "server", "deploy", "experiments", "tests")
    for path in (ROOT / folder).rglob("*.py")
)
FOLDERS = "fed_asi|clients|server|deploy|experiments|tests|docs"
A_FILE = re.compile(rf"(?<![\w./-])((?:{FOLDERS})/[\w./-]*\.(?:py|md|toml|txt|csv|png|svg))(?![\w/])")
A_FOLDER = re.compile(rf"`((?:{FOLDERS})/(?:\w+/)*)`")
A_TEST = re.compile(r"(?<![\w/.])(test_\w+\.py)")
MADE_UP = re.compile(r"NEW|X|MODULE|ROOM")

TESTS = {path.name for path in (ROOT / "tests").rglob("test_*.py")}


def missing(text: str) -> list[str]:
    """Return the files, folders and tests that a text names and that are not there."""
    named = [name for name in A_FILE.findall(text) if not MADE_UP.search(name)]
    gone = [name for name in named if not (ROOT / name).is_file()]
    gone += [name for name in A_FOLDER.findall(text) if not (ROOT / name).is_dir()]
    return gone + [name for name in A_TEST.findall(text) if name not in TESTS and not MADE_UP.search(name)]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_what_a_page_names_is_there(page: Path) -> None:
    text = page.read_text()
    assert missing(text) == []
    links = [link for link in re.findall(r"\]\(([^)#]+)[^)]*\)", text) if "://" not in link]
    assert [link for link in links if not (page.parent / link).exists()] == []


def test_the_index_names_every_page() -> None:
    docs = ROOT / "docs"
    named = re.findall(r"\]\(([^)]+\.md)\)", (docs / "index.md").read_text())
    assert sorted(named) == sorted(
        str(path.relative_to(docs)) for path in docs.rglob("*.md") if path.parent != docs
    )


def test_the_glossary_is_in_order_and_has_a_term_once() -> None:
    text = (ROOT / "docs" / "reference" / "glossary.md").read_text()
    terms = [row.lower() for row in re.findall(r"^\| (?!term|-)(.*?) \|", text, flags=re.M)]
    assert terms == sorted(set(terms))
    assert len(terms) > 40


def test_what_docstrings_name_is_there() -> None:
    found = {}
    for path in SOURCES:
        text = path.read_text()
        if not missing(text):  # nor in its docstrings, and few files have to be parsed
            continue
        tree = ast.parse(text)
        kinds = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
        texts = [ast.get_docstring(node) or "" for node in ast.walk(tree) if isinstance(node, kinds)]
        if gone := missing("\n".join(texts)):
            found[str(path.relative_to(ROOT))] = gone
    assert found == {}


def test_nothing_cites_a_page_that_is_not_in_the_repository() -> None:
    pages = {path.name for path in [*PAGES, ROOT / "CHANGELOG.md"]}
    for path in [*PAGES, *SOURCES]:
        if path != Path(__file__):
            cited = set(re.findall(r"\b([A-Z]{4,}\.md)\b", path.read_text()))
            assert cited <= pages, path


def test_every_room_is_named_once_where_contributors_look() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text()
    rooms = sorted(path.parent.name for path in (ROOT / "fed_asi").glob("*/__init__.py"))
    for room in rooms:
        assert len(re.findall(rf"^\| .*`{room}/`.* \|", text, flags=re.M)) == 1, room
    leaves = {path.name for path in (ROOT / "fed_asi").glob("*.py")} - {"__init__.py", "__main__.py"}
    assert {name for name in leaves if f"`{name}`" in text} == leaves
