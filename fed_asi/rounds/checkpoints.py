"""What a run needs to go on after a kill: weights and the strategy's state after each round, and what devices keep.

Files are written beside their place, synced, then renamed into it: a reader sees the whole old file or the
whole new one. A round is recorded (records.py) after its checkpoint, so a recorded round always has one.
Device files are named by the round they come from; a device's next job says which of them it starts from, so
a round that is done again after a kill starts from the same factors as the first time.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from torch import Tensor

from fed_asi.errors import RunError
from fed_asi.files import pack, round_file, unpack, write_file

KEPT_CHECKPOINTS = 2


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The global trained tensors after `round` (0: before the first), of the run with this fingerprint.

    strategy: the strategy's state then.
    """

    round: int
    fingerprint: str
    tensors: dict[str, Tensor]
    strategy: Mapping[str, Tensor] = field(default_factory=dict)


def save(folder: Path, checkpoint: Checkpoint) -> None:
    """Write the weights after a round and drop all but the last two files.

    folder: checkpoints/ of a run. Raises RunError where it cannot be written.
    """
    tensors = {name: tensor.detach().clone() for name, tensor in checkpoint.tensors.items()}
    strategy = {name: tensor.detach().clone() for name, tensor in checkpoint.strategy.items()}
    content = {"round": checkpoint.round, "fingerprint": checkpoint.fingerprint, "tensors": tensors}
    content |= {"strategy": strategy} if strategy else {}
    write_file(round_file(folder, checkpoint.round), pack(content))
    for old in sorted(folder.glob("round-*.pt"))[:-KEPT_CHECKPOINTS]:
        if old != round_file(folder, checkpoint.round):
            old.unlink(missing_ok=True)


def load(folder: Path, round: int, fingerprint: str) -> Checkpoint:
    """Return the weights after `round`.

    Raises RunError for a file that is missing, corrupt, of a newer version, or of another run's fingerprint.
    """
    content = unpack(round_file(folder, round))
    if content["fingerprint"] != fingerprint:
        raise RunError(f"{round_file(folder, round)} belongs to a run with other settings")
    strategy = dict(content.get("strategy", {}))
    return Checkpoint(int(content["round"]), fingerprint, dict(content["tensors"]), strategy)


def weights_digest(tensors: Mapping[str, Tensor]) -> str:
    """Return the SHA-256 of named tensors, to compare runs to the bit."""
    sha = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().contiguous()
        sha.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        sha.update(tensor.numpy().tobytes())
    return sha.hexdigest()
