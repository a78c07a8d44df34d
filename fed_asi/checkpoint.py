"""What a run needs to go on after a kill: the weights after each round, and each device's warm factors.

Files are written beside their place, synced, then renamed into it: a reader sees the whole old file or the
whole new one. A round is recorded (records.py) after its checkpoint, so a recorded round always has one.
Device files are named by the round they come from; a device's next job says which of them it starts from, so
a round that is done again after a kill starts from the same factors as the first time.
"""

from __future__ import annotations

import contextlib
import io
import os
import pickle
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fed_asi.errors import RunError

VERSION = 1
KEPT_CHECKPOINTS = 2

Factors = dict[str, list[Tensor]]  # by layer; an empty tensor where a mode has none


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The global trained tensors after `round` (0: before the first), of the run with this fingerprint."""

    round: int
    fingerprint: str
    tensors: dict[str, Tensor]


def write_file(path: Path, content: bytes, *, sync: bool = True) -> None:
    """Write a file so that it is there whole or not at all; with sync, also after a power cut.

    Raises RunError, one line, where the disk is full or the folder cannot be written.
    """
    temporary: str | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            if sync:
                os.fsync(file.fileno())
        Path(temporary).replace(path)
    except OSError as error:
        if temporary is not None:
            with contextlib.suppress(OSError):
                Path(temporary).unlink()
        raise RunError(f"cannot write {path}: {error.strerror}; what was recorded so far is kept") from error


def _pack(content: dict[str, Any]) -> bytes:
    buffer = io.BytesIO()
    torch.save({"version": VERSION, **content}, buffer)
    return buffer.getvalue()


def _unpack(path: Path) -> dict[str, Any]:
    try:
        content = torch.load(io.BytesIO(path.read_bytes()), weights_only=True)
    except FileNotFoundError:
        raise RunError(f"no file {path}") from None
    except (OSError, RuntimeError, EOFError, ValueError, pickle.UnpicklingError) as error:
        raise RunError(f"{path} is corrupt: {str(error).splitlines()[0]}") from error
    if not isinstance(content, dict) or content.get("version") != VERSION:
        found = content.get("version") if isinstance(content, dict) else None
        raise RunError(f"{path} is of version {found}; this program reads {VERSION}")
    return content


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write named tensors as one file, whole or not at all. Raises RunError where it cannot be written."""
    write_file(path, _pack({"tensors": {name: tensor.detach().clone() for name, tensor in tensors.items()}}))


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Return the named tensors of a file. Raises RunError where it is missing, corrupt or newer."""
    return dict(_unpack(path)["tensors"])


def _path(folder: Path, round: int) -> Path:
    return folder / f"round-{round:06d}.pt"


def save(folder: Path, checkpoint: Checkpoint) -> None:
    """Write the weights after a round and drop all but the last two files.

    folder: checkpoints/ of a run. Raises RunError where it cannot be written.
    """
    tensors = {name: tensor.detach().clone() for name, tensor in checkpoint.tensors.items()}
    content = {"round": checkpoint.round, "fingerprint": checkpoint.fingerprint, "tensors": tensors}
    write_file(_path(folder, checkpoint.round), _pack(content))
    for old in sorted(folder.glob("round-*.pt"))[:-KEPT_CHECKPOINTS]:
        if old != _path(folder, checkpoint.round):
            old.unlink(missing_ok=True)


def load(folder: Path, round: int, fingerprint: str) -> Checkpoint:
    """Return the weights after `round`.

    Raises RunError for a file that is missing, corrupt, of a newer version, or of another run's fingerprint.
    """
    content = _unpack(_path(folder, round))
    if content["fingerprint"] != fingerprint:
        raise RunError(f"{_path(folder, round)} belongs to a run with other settings")
    return Checkpoint(int(content["round"]), fingerprint, dict(content["tensors"]))


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
    write_file(_path(own, round), _pack({"factors": content}), sync=False)
    for old in own.glob("round-*.pt"):
        if old not in {_path(own, round), _path(own, base)}:
            old.unlink(missing_ok=True)


def load_factors(folder: Path, partition_id: int, round: int) -> Factors | None:
    """Return the warm factors a device had after `round`, or None where there are none to be read."""
    path = _path(folder / f"{partition_id:06d}", round)
    if round == 0 or not path.exists():
        return None
    factors: Factors = _unpack(path)["factors"]
    return factors
