"""What a run needs to resume after a kill: weights and the strategy's state after each round, and what devices keep.

Files are written atomically: a reader sees the whole old file or the whole new one. A round is recorded after its
checkpoint is written, so a recorded round always has one. Device files are named by the round they come from. A
device's next job says which of them it starts from, so a round that is repeated after a kill starts from the same
factors as the first time.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from torch import Tensor

from fed_asi.errors import RunError
from fed_asi.files import pack, round_file, unpack, write_file
from fed_asi.results.schema import DeviceRoundRecord
from fed_asi.rounds.state import Begun, State

KEPT_CHECKPOINTS = 2


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The global trained tensors after `round` (0: before the first), of the run with this fingerprint.

    strategy: the strategy's state then. Of buffered rounds: begun: who is at work then; draws: how often devices have
    been drawn; needs: the rounds whose weights this checkpoint or the one before needs.
    """

    round: int
    fingerprint: str
    tensors: dict[str, Tensor]
    strategy: Mapping[str, Tensor] = field(default_factory=dict)
    begun: tuple[Begun, ...] = ()
    draws: int = 0
    needs: frozenset[int] = frozenset()


def of(state: State, fingerprint: str, records: Iterable[DeviceRoundRecord] = ()) -> Checkpoint:
    """Return the checkpoint of a state. records: of its round."""
    began = [one.round for one in state.begun]
    began += [one.round - one.staleness for one in records if one.staleness is not None]
    needs = frozenset(round - 1 for round in began)
    return Checkpoint(
        state.round, fingerprint, state.tensors, state.strategy, state.begun, state.draws, needs
    )


def save(folder: Path, checkpoint: Checkpoint) -> None:
    """Write the weights after a round and drop all but the last two files and those from which devices at work began.

    folder: checkpoints/ of a run. Raises RunError where it cannot be written.
    """
    tensors = {name: tensor.detach().clone() for name, tensor in checkpoint.tensors.items()}
    strategy = {name: tensor.detach().clone() for name, tensor in checkpoint.strategy.items()}
    content = {"round": checkpoint.round, "fingerprint": checkpoint.fingerprint, "tensors": tensors}
    content |= {"strategy": strategy} if strategy else {}
    content |= {"begun": [asdict(one) for one in checkpoint.begun]} if checkpoint.begun else {}
    content |= {"draws": checkpoint.draws} if checkpoint.draws else {}
    write_file(round_file(folder, checkpoint.round), pack(content))
    needs = {round_file(folder, round) for round in checkpoint.needs}
    for old in sorted(folder.glob("round-*.pt"))[:-KEPT_CHECKPOINTS]:
        if old not in needs:
            old.unlink(missing_ok=True)


def load(folder: Path, round: int, fingerprint: str) -> Checkpoint:
    """Return the weights after `round`.

    Raises RunError for a file that is missing, corrupt, of a newer version, or of another run's fingerprint.
    """
    content = unpack(round_file(folder, round))
    if content["fingerprint"] != fingerprint:
        raise RunError(f"{round_file(folder, round)} belongs to a run with other settings")
    strategy = dict(content.get("strategy", {}))
    begun = tuple(Begun(**one) for one in content.get("begun", ()))
    draws = int(content.get("draws", 0))
    return Checkpoint(int(content["round"]), fingerprint, dict(content["tensors"]), strategy, begun, draws)


def weights_digest(tensors: Mapping[str, Tensor]) -> str:
    """Return the SHA-256 of named tensors, to compare runs to the bit."""
    sha = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().contiguous()
        sha.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        sha.update(tensor.numpy().tobytes())
    return sha.hexdigest()
