"""A device's warm factors on disk, named by the round they come from."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

import torch
from torch import Tensor

from fed_asi.devices.job import Job
from fed_asi.errors import RunError
from fed_asi.files import pack, round_file, unpack, unpack_bytes, write_file

WarmFactors = dict[str, list[Tensor]]  # by layer; an empty tensor where a mode has none


@dataclass(frozen=True, slots=True)
class OnDisk:
    """The state of all devices in one folder. folder: devices/ of a run."""

    folder: Path

    def factors(self, job: Job) -> WarmFactors | None:
        """Return the factors the job starts from, as `load_factors` does."""
        return load_factors(self.folder, job.partition_id, job.factors_round)

    def keep(self, job: Job, factors: WarmFactors) -> None:
        """Write the factors after the job, if there are any. Raises RunError where they cannot be written."""
        if factors:
            save_factors(self.folder, job.partition_id, job.round, job.factors_round, factors)


def save_factors(
    folder: Path, partition_id: int, round: int, base: int, factors: Mapping[str, Sequence[Tensor]]
) -> None:
    """Write a device's warm factors after `round`; keep those of `base`, from which it started, and those before.

    A resumed run may have to repeat this round, or the one before. folder: devices/ of a run or of a device's own
    disk.
    Round 0 means none. Raises RunError where the disk fails.
    """
    own = folder / f"{partition_id:06d}"
    write_file(round_file(own, round), packed(factors))
    with contextlib.suppress(OSError):  # an old file left behind does no harm
        there = sorted(own.glob("round-*.pt"))
        before = [path for path in there if path < round_file(own, base)]
        kept = {round_file(own, round), round_file(own, base), *before[-1:]}
        for old in there:
            if old not in kept:
                old.unlink(missing_ok=True)


def load_factors(folder: Path, partition_id: int, round: int) -> WarmFactors | None:
    """Return the warm factors that a device had after `round`; None for round 0, before any step.

    Raises RunError for a file that is missing, corrupt, of another version, or holds anything else.
    """
    if round == 0:
        return None
    path = round_file(folder / f"{partition_id:06d}", round)
    return factors_of(unpack(path), str(path))


def packed(factors: Mapping[str, Sequence[Tensor]]) -> bytes:
    """Return warm factors as bytes, with their memory layout, which decides the last bits of the next step."""
    content = {name: [part.detach().clone() for part in parts] for name, parts in factors.items()}
    return pack({"factors": content})


def unpacked(held: bytes, name: str) -> WarmFactors:
    """Return what `packed` made. Raises RunError for anything else; `name` is what errors call it."""
    return factors_of(unpack_bytes(held, name), name)


def factors_of(content: Mapping[str, Any], name: str) -> WarmFactors:
    """Return the warm factors in unpacked content. Raises RunError where it holds anything else."""
    factors = content.get("factors")
    if not are_factors(factors):
        raise RunError(f"{name} holds no warm factors")
    return factors


def factors_bytes(factors: Mapping[str, Sequence[Tensor]]) -> int:
    """Return the bytes of a device's warm factors between its rounds."""
    return sum(part.nbytes for parts in factors.values() for part in parts)


def factors_on(factors: Mapping[str, Sequence[Tensor]], device: torch.device) -> WarmFactors:
    """Return warm factors on a device; those already there are not copied."""
    return {name: [part.to(device) for part in parts] for name, parts in factors.items()}


def are_factors(found: object) -> TypeGuard[WarmFactors]:
    """Return whether something read from a device's state has the form of warm factors."""
    return isinstance(found, dict) and all(
        isinstance(name, str) and isinstance(parts, list) and all(isinstance(part, Tensor) for part in parts)
        for name, parts in found.items()
    )
