"""`fed-asi doctor`: what this machine has for a run, what is missing, and what to do; exits 2 if no run can work."""

from __future__ import annotations

import argparse
import os
import platform
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal

import torch
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from fed_asi.commands.compose import check_engine
from fed_asi.commands.console import OK, USER_ERROR, add_output, answer, bar, hint, show
from fed_asi.errors import ConfigError, nearest
from fed_asi.gpus import GPU, gpus_here, why_none
from fed_asi.machine import cpus_here, memory_here
from fed_asi.models.download import cache_dir
from fed_asi.texts import visible
from fed_asi.units import format_bytes
from fed_asi.workplace.features import store_path

State = Literal["ok", "note", "wrong"]  # "note": most things work all the same

# Environment variables that are read, with the purpose of each.
VARIABLES = {
    "FED_ASI_APP": "the program's folder, in containers",
    "FED_ASI_BALLAST_MIB": "MiB that a device's container takes up, to test its memory limit",
    "FED_ASI_CACHE_DIR": "where downloads are kept",
    "FED_ASI_DATA_DIR": "where data sets are",
    "FED_ASI_DEBUG": "a traceback instead of one line, and all of Flower's log",
    "FED_ASI_FEATURES_DIR": "where the frozen trunk's features are kept for all runs",
    "FED_ASI_IMAGE": "the name of the containers' image",
    "FED_ASI_NODE_DIR": "where a machine of a cluster keeps what the server's machine sends",
    "FED_ASI_PORT": "the report's port, with containers",
    "FED_ASI_PROFILES": "compose's profiles, told to containers",
    "FED_ASI_PROFILES_DIR": "where profiles are kept for runs that share them",
    "FED_ASI_RUNS_DIR": "where runs are kept",
    "FED_ASI_STATE_DIR": "where a device in a container keeps its state",
    "FED_ASI_WEIGHTS_DIR": "where pretrained weights are",
    "FED_ASI_WORKPLACE_DIR": "where machines of one run share its workplace",
}
# Those that only tests read.
OF_TESTS = frozenset({"FED_ASI_NEEDS_ENGINE", "FED_ASI_SHARED"})
EXAMPLE = "fed-asi doctor"
LITTLE_DISK = 2 * 1024**3  # what two runs of the cifar10 fleet take, features included
LITTLE_MEMORY = 4 * 1024**3
_PYTHON = "Programming Language :: Python :: 3."  # one line per version that was tested (docs/reference/versions.md)


@dataclass(frozen=True, slots=True)
class Finding:
    """One line: what was checked, its state, what was found, and what to do if it is not "ok"."""

    about: str
    state: State
    found: str
    do: str = ""


# A new check is one more registered function that yields findings.
CHECKS: list[Callable[[], Iterator[Finding]]] = []


def register(check: Callable[[], Iterator[Finding]]) -> Callable[[], Iterator[Finding]]:
    """Return a check, after adding it to those that `examine` runs."""
    CHECKS.append(check)
    return check


def examine() -> list[Finding]:
    """Return the findings of all checks, in order."""
    return [finding for check in CHECKS for finding in check()]


@register
def _python() -> Iterator[Finding]:
    about, version = metadata.metadata("fed-asi"), platform.python_version()
    wanted = SpecifierSet(about["Requires-Python"])
    tested = [one.rpartition(" ")[2] for one in about.get_all("Classifier", []) if one.startswith(_PYTHON)]
    found = f"{version} on {platform.system()} {platform.machine()} ({sys.executable})"
    if not wanted.contains(version):
        yield Finding("python", "wrong", found, f"install Python {wanted}")
    elif tested and version.rpartition(".")[0] not in tested:
        said = f"{found}, tested with {', '.join(tested)}"
        yield Finding("python", "note", said, f"install Python {tested[-1]}, or try it")
    else:
        yield Finding("python", "ok", found)


@register
def _packages() -> Iterator[Finding]:
    yield Finding("fed-asi", "ok", metadata.version("fed-asi"))
    for needed in _needs("fed-asi", {""}):
        yield _package(needed)


@register
def _together() -> Iterator[Finding]:
    """Yield requirements of our packages that others do not meet, such as a torchvision built for another torch."""
    for owner in _needs("fed-asi", {""}):
        for needed in _needs(owner.name, {"", *owner.extras}):
            version = _version(needed.name)
            if version is None or not needed.specifier.contains(version, prereleases=True):
                found = f"{owner.name} {_version(owner.name)} asks for it; here is {version or 'none'}"
                yield Finding(f"{needed.name}{needed.specifier}", "note", found, _install(owner, needed))


def _needs(package: str, extras: set[str]) -> list[Requirement]:
    """Return what a package requires here with some of its extras ("" among them); empty if it is not installed."""
    try:
        needed = [Requirement(text) for text in metadata.requires(package) or ()]
    except metadata.PackageNotFoundError:
        return []
    return [
        one for one in needed if one.marker is None or any(one.marker.evaluate({"extra": e}) for e in extras)
    ]


def _install(*needed: Requirement) -> str:
    return "pip install " + " ".join(f'"{_asked(one)}"' for one in needed)


def _asked(needed: Requirement) -> str:
    extras = f"[{','.join(sorted(needed.extras))}]" if needed.extras else ""
    return f"{needed.name}{extras}{needed.specifier}"


def _package(needed: Requirement) -> Finding:
    version = _version(needed.name)
    if version is None:
        return Finding(needed.name, "wrong", "missing", _install(needed))
    if needed.specifier.contains(version, prereleases=True):
        return Finding(needed.name, "ok", version)
    tested = f"{version}, tested with {needed.specifier}"
    return Finding(needed.name, "note", tested, f"{_install(needed)}, or try it")


@register
def _extras() -> Iterator[Finding]:
    for extra in metadata.metadata("fed-asi").get_all("Provides-Extra", []):
        if extra == "dev":
            continue
        needed = [Requirement(text) for text in metadata.requires("fed-asi") or () if "extra ==" in text]
        names = [
            one.name for one in needed if one.marker is not None and one.marker.evaluate({"extra": extra})
        ]
        missing = [name for name in names if _version(name) is None]
        if missing:
            yield Finding(extra, "note", f"no {', '.join(missing)}", f'pip install "fed-asi[{extra}]"')
        else:
            yield Finding(extra, "ok", ", ".join(f"{name} {_version(name)}" for name in names))


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


@register
def _processors() -> Iterator[Finding]:
    here, all_of_them = cpus_here(), os.cpu_count() or 1
    yield Finding("cores", "ok", f"{here}" if here == all_of_them else f"{here} of {all_of_them}")
    threads = f"torch has {torch.get_num_threads()}; a run sets its own number, compute.threads"
    yield Finding("threads", "ok", threads)


@register
def _memory() -> Iterator[Finding]:
    here = memory_here()
    few = here < LITTLE_MEMORY
    yield Finding(
        "memory",
        "note" if few else "ok",
        format_bytes(here),
        "give compute.workers = 1 to fleets that need more" if few else "",
    )
    shared = Path("/dev/shm")
    if shared.is_dir() and shutil.disk_usage(shared).total < 1024**3:
        size = format_bytes(shutil.disk_usage(shared).total)
        yield Finding("/dev/shm", "note", size, "Ray is slow with so little; docker run --shm-size=2g, say")


@register
def _gpu() -> Iterator[Finding]:
    found = gpus_here()
    if not found:
        yield Finding("gpu", "ok", f"none ({why_none()}); nothing here needs one")
    for one in found:
        yield Finding("gpu", "ok", f'{one}; a run with compute.device = "{GPU}:{one.number}" computes on it')


@register
def _engine() -> Iterator[Finding]:
    try:
        check_engine()
    except ConfigError as error:
        found, _, do = str(error).partition(": ")
        yield Finding("containers", "note", found, do)
    else:
        yield Finding("containers", "ok", "docker and its compose plugin answer")


@register
def _folders() -> Iterator[Finding]:
    for about, path in (
        ("runs", Path(os.environ.get("FED_ASI_RUNS_DIR") or "runs")),
        ("features", Path(store_path())),
        ("downloads", cache_dir()),
    ):
        yield _written(about, path)
    for about, name in (("data", "FED_ASI_DATA_DIR"), ("weights", "FED_ASI_WEIGHTS_DIR")):
        yield _read(about, name)


def _written(about: str, path: Path) -> Finding:
    """Return whether files can be written under a folder, which need not exist yet."""
    there = next(one for one in (path.absolute(), *path.absolute().parents) if one.exists())
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        why = "no folder" if not there.is_dir() else "not writable"
        return Finding(
            about, "wrong", f"{path}: {there} is {why}", "name another one, or change its permissions"
        )
    free = shutil.disk_usage(there).free
    found = f"{path}, {format_bytes(free)} free"
    return Finding(about, "note", found, "make room") if free < LITTLE_DISK else Finding(about, "ok", found)


def _read(about: str, variable: str) -> Finding:
    named = os.environ.get(variable)
    if not named:
        return Finding(about, "ok", f"{variable} is not set: --{about}-dir names it, or they are downloaded")
    if Path(named).is_dir() and os.access(named, os.R_OK | os.X_OK):
        return Finding(about, "ok", f"{named} ({variable})")
    return Finding(about, "wrong", f"{variable} is {named}, no folder that can be read", f"unset {variable}")


@register
def _variables() -> Iterator[Finding]:
    for name in sorted(os.environ):
        if re.match("FED_ASI_", name) and name not in VARIABLES.keys() | OF_TESTS:
            yield Finding(name, "note", "nothing reads this variable", nearest(name, VARIABLES))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    add_output(parser)


def main(_given: argparse.Namespace) -> int:
    """Print what was found and return the exit code."""
    with bar("looking at this machine"):
        found = examine()
    show(_lines(found))
    hint(_count(found))
    answer(findings=found)
    return USER_ERROR if any(one.state == "wrong" for one in found) else OK


def _lines(found: list[Finding]) -> str:
    width = max(len(one.about) for one in found)
    lines = []
    for one in found:
        lines.append(f"{one.state:5}  {visible(one.about):{width}}  {visible(one.found)}")
        lines += [f"{'':5}  {'':{width}}  -> {visible(one.do)}"] if one.do else []
    return "\n".join(lines)


def _count(found: list[Finding]) -> str:
    wrong, notes = (sum(one.state == state for one in found) for state in ("wrong", "note"))
    return f"{wrong} wrong, {notes} notes, {len(found) - wrong - notes} ok"
