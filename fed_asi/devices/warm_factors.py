"""A device's warm factors on disk, named by the round they come from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from torch import Tensor

from fed_asi.files import pack, unpack, write_file

WarmFactors = dict[str, list[Tensor]]  # by layer; an empty tensor where a mode has none


def _file(folder: Path, round: int) -> Path:
    return folder / f"round-{round:06d}.pt"


def save_factors(
    folder: Path, partition_id: int, round: int, base: int, factors: Mapping[str, Sequence[Tensor]]
) -> None:
    """Write a device's warm factors after `round`; keep those of `base`, which it started from.

    folder: devices/ of a run or of a device's own disk. Round 0 means none.
    """
    content = {
        name: [f if f is None else f.detach().clone() for f in parts] for name, parts in factors.items()
    }
    own = folder / f"{partition_id:06d}"
    write_file(_file(own, round), pack({"factors": content}), sync=False)
    for old in own.glob("round-*.pt"):
        if old not in {_file(own, round), _file(own, base)}:
            old.unlink(missing_ok=True)


def load_factors(folder: Path, partition_id: int, round: int) -> WarmFactors | None:
    """Return the warm factors a device had after `round`, or None where there are none to be read."""
    path = _file(folder / f"{partition_id:06d}", round)
    if round == 0 or not path.exists():
        return None
    factors: WarmFactors = unpack(path)["factors"]
    return factors
