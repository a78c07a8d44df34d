"""A device's warm factors on disk, named by the round they come from."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeGuard

from torch import Tensor

from fed_asi.devices.job import Job
from fed_asi.errors import RunError
from fed_asi.files import pack, round_file, unpack, write_file

WarmFactors = dict[str, list[Tensor]]  # by layer; an empty tensor where a mode has none


@dataclass(frozen=True, slots=True)
class OnDisk:
    """The state of all devices in one folder. folder: devices/ of a run."""

    folder: Path

    def factors(self, job: Job) -> WarmFactors | None:
        """Return the factors the job starts from, as `load_factors` does."""
        return load_factors(self.folder, job.partition_id, job.factors_round)

    def keep(self, job: Job, factors: WarmFactors) -> None:
        """Write the factors after the job, where there are any. Raises RunError where they cannot be written."""
        if factors:
            save_factors(self.folder, job.partition_id, job.round, job.factors_round, factors)


def save_factors(
    folder: Path, partition_id: int, round: int, base: int, factors: Mapping[str, Sequence[Tensor]]
) -> None:
    """Write a device's warm factors after `round`; keep those of `base`, which it started from.

    folder: devices/ of a run or of a device's own disk. Round 0 means none. Raises RunError where the disk fails.
    """
    content = {
        name: [f if f is None else f.detach().clone() for f in parts] for name, parts in factors.items()
    }
    own = folder / f"{partition_id:06d}"
    write_file(round_file(own, round), pack({"factors": content}), sync=False)
    with contextlib.suppress(OSError):  # an old file that stays is no harm
        for old in own.glob("round-*.pt"):
            if old not in {round_file(own, round), round_file(own, base)}:
                old.unlink(missing_ok=True)


def load_factors(folder: Path, partition_id: int, round: int) -> WarmFactors | None:
    """Return the warm factors a device had after `round`, or None where there are none.

    Raises RunError for a file that is corrupt, of another version, or holds something else.
    """
    path = round_file(folder / f"{partition_id:06d}", round)
    try:
        if round == 0 or not path.exists():
            return None
    except OSError as error:
        raise RunError(f"cannot read {path}: {error.strerror}") from error
    factors = unpack(path).get("factors")
    if not are_factors(factors):
        raise RunError(f"{path} holds no warm factors")
    return factors


def are_factors(found: object) -> TypeGuard[WarmFactors]:
    """Return whether something read from a device's state has the form of warm factors."""
    return isinstance(found, dict) and all(
        isinstance(name, str) and isinstance(parts, list) and all(isinstance(part, Tensor) for part in parts)
        for name, parts in found.items()
    )
