"""What `make` installs: pinned, one version per package, within the ranges that the package requires."""

from __future__ import annotations

import tomllib
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]


def pinned() -> dict[str, str]:
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    pairs = [line.split("==") for line in lines]
    assert all(len(pair) == 2 for pair in pairs), "every line is NAME==VERSION"
    found = {canonicalize_name(name): version for name, version in pairs}
    assert len(found) == len(lines), "a package is named once"
    return found


def test_every_requirement_is_pinned_within_its_range() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    asked = [*project["dependencies"], *extras["dev"], *extras["docs"]]  # what make installs
    versions = pinned()

    for requirement in map(Requirement, asked):
        version = versions[canonicalize_name(requirement.name)]
        assert requirement.specifier.contains(version), f"{requirement}: {version}"


def test_the_makefile_and_the_containers_have_the_same_torch() -> None:
    versions = pinned()
    assert f"VERSIONS ?= torch=={versions['torch']}\n" in (ROOT / "Makefile").read_text()
    assert f"ARG TORCH_VERSION={versions['torch']}\n" in (ROOT / "Dockerfile").read_text()
