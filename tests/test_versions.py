"""docs/reference/versions.md: the ranges that the package accepts are those tested, no more and no less."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
ASKED = {one.name: one.specifier for one in map(Requirement, PROJECT["dependencies"])}


def rows() -> list[dict[str, str]]:
    """Return the page's sets of versions, a row each."""
    lines = (ROOT / "docs" / "reference" / "versions.md").read_text().splitlines()
    table = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")]
    head, _, *sets = table
    return [dict(zip(head, row, strict=True)) for row in sets]


def minors(name: str) -> set[tuple[int, ...]]:
    return {Version(row[name]).release[:2] for row in rows()}


@pytest.mark.parametrize("name", ["flwr", "torch", "torchvision"])
def test_a_range_is_from_the_first_release_that_was_tested_to_the_last(name: str) -> None:
    found = minors(name)
    bounds = {one.operator: Version(one.version).release[:2] for one in ASKED[name]}

    assert bounds.keys() == {">=", "<"}
    assert bounds[">="] == min(found)
    major, minor = max(found)
    assert bounds["<"] == (major, minor + 1)
    assert len({one[0] for one in found}) == 1, "of one major release, none between them is left out"
    assert {one[1] for one in found} == {*range(min(found)[1], minor + 1)}


def test_pythons_are_those_that_were_tested() -> None:
    said = [
        one.rpartition(" ")[2] for one in PROJECT["classifiers"] if re.search(r":: Python :: 3\.\d+$", one)
    ]

    assert [Version(one).release for one in said] == sorted(minors("Python"))
    assert PROJECT["requires-python"] == f">={said[0]}"


def test_what_make_installs_is_one_of_them() -> None:
    pinned = dict(re.findall(r"^(\w+)==(\S+)$", (ROOT / "constraints.txt").read_text(), flags=re.M))

    assert any(
        all(Version(row[name]).base_version == pinned[name] for name in ("flwr", "torch", "torchvision"))
        for row in rows()
    )
