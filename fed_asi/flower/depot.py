"""What the server of a run provides to the machines of a Ray cluster that cannot see its folder.

One process on the server's machine reads and writes there for workers elsewhere: files of the workplace, rows of
features, devices' warm factors, and marks of who is at work. Large data pass through Ray's object store in pieces, so
that a machine needs room for only a few of them. A round's tensors are put there once; each machine fetches them once,
and its workers share that memory.
"""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fed_asi.devices.job import Job
from fed_asi.devices.warm_factors import WarmFactors, packed, unpacked
from fed_asi.errors import FedAsiError, RunError, first_line
from fed_asi.flower.home import HomeFolder
from fed_asi.flower.object_store import FULL
from fed_asi.workplace.afar import Lender, Listing
from fed_asi.workplace.uses import TRAIN

NAMESPACE = "fed_asi"
CALLS = 8  # answered concurrently
ASK_SECONDS, WORD_SECONDS = 600.0, 5.0  # a first listing reads every file


class Desk:
    """The process on the server's machine. workplace, states: the run's folders."""

    def __init__(self, workplace: str, states: str) -> None:
        self._lender, self._home = Lender(Path(workplace)), HomeFolder(Path(states))
        self._held: dict[str, list[Any]] = {}

    def answer(self, call: str, *arguments: Any) -> tuple[Any, str | None]:
        """Return what a call returns, and None; or None, and in one line why it is refused."""
        try:
            return getattr(self, call)(*arguments), None
        except (FedAsiError, OSError) as error:
            return None, first_line(error)

    def listing(self) -> Listing:
        """Return what the workplace is made of."""
        return self._lender.listing()

    def piece(self, name: str, start: int) -> bytes:
        """Return bytes of one file."""
        return self._lender.piece(name, start)

    def rows(self, rows: Sequence[int], use: str) -> Any:
        """Return rows of features of one use."""
        return self._lender.rows(rows, use)

    def factors(self, job: Job) -> bytes:
        """Return the warm factors a job starts from, packed: their layout in memory decides the next bits."""
        return packed(self._home.factors(job) or {})

    def keep(self, job: Job, factors: bytes) -> None:
        """Keep the warm factors after a job."""
        self._home.keep(job, unpacked(factors, f"what device {job.partition_id} sent"))

    def word(self, kind: str, job: Job) -> None:
        """Set or remove the mark of a device: "begin", "late" or "clear"."""
        getattr(self._home, kind)(job)

    def hold(self, key: str, boxed: list[Any]) -> None:
        """Hold a reference to tensors in the object store. boxed: a list of it, which Ray passes as it is."""
        self._held[key] = boxed

    def held(self, key: str) -> list[Any]:
        """Return the reference. Raises RunError where it is not held any more."""
        if key not in self._held:
            raise RunError(
                f"the tensors {key} of this run are gone: their round has ended, or the process that held them"
            )
        return self._held[key]

    def drop(self, key: str) -> None:
        """Release tensors."""
        self._held.pop(key, None)


class Depot:
    """The desk as seen by a worker on any machine. A call that is refused or does not arrive raises RunError."""

    def __init__(self, desk: Any) -> None:
        import ray

        self._ray: Any = ray
        self._desk = desk

    @classmethod
    def named(cls, name: str) -> Depot:
        """Return the depot of that name in this cluster."""
        import ray

        try:
            return cls(ray.get_actor(name, namespace=NAMESPACE))
        except ValueError as error:
            raise RunError(f"the server's machine cannot be reached: {first_line(error)}") from error

    def listing(self) -> Listing:
        """Return what the workplace is made of."""
        found: Listing = self.ask("listing")
        return found

    def piece(self, name: str, start: int) -> bytes:
        """Return bytes of one file."""
        return bytes(self.ask("piece", name, start))

    def rows(self, rows: Sequence[int], use: str = TRAIN) -> Any:
        """Return rows of features of one use, in memory that this machine's workers share."""
        return self.ask("rows", list(rows), use)

    def tensors(self, key: str) -> dict[str, Tensor]:
        """Return a round's tensors, copied from this machine's object store, which fetches them once."""
        (reference,) = self.ask("held", key)
        with self._reached():
            arrays: Mapping[str, Any] = self._ray.get(reference, timeout=ASK_SECONDS)
        return {name: torch.from_numpy(np.array(array)) for name, array in arrays.items()}

    def factors(self, job: Job) -> WarmFactors | None:
        """Return the warm factors the job starts from."""
        if job.factors_round == 0:
            return None
        return unpacked(self.ask("factors", job), "what the server's machine sent")

    def keep(self, job: Job, factors: WarmFactors) -> None:
        """Keep the warm factors after the job, where there are any."""
        if factors:
            self.ask("keep", job, packed(factors))

    def begin(self, job: Job) -> None:
        """Mark a device as being at work."""
        self.ask("word", "begin", job)

    def late(self, job: Job) -> None:
        """Mark a device as ended for working too long."""
        self.ask("word", "late", job, seconds=WORD_SECONDS)

    def clear(self, job: Job) -> None:
        """Remove a device's mark, if the desk can be reached; a mark that stays means that the device had begun."""
        with contextlib.suppress(RunError):
            self.ask("word", "clear", job, seconds=WORD_SECONDS)

    def ask(self, call: str, *arguments: Any, seconds: float = ASK_SECONDS) -> Any:
        """Return what a call of the desk returns."""
        with self._reached():
            value, refused = self._ray.get(self._desk.answer.remote(call, *arguments), timeout=seconds)
        if refused is not None:
            raise RunError(refused)
        return value

    @contextmanager
    def _reached(self) -> Iterator[None]:
        """Turn Ray's errors into one line, also after Ray has ended."""
        try:
            yield
        except self._ray.exceptions.RayError as error:
            raise RunError(self._why(error)) from error

    def _why(self, error: Exception) -> str:
        if type(error).__name__ in FULL:
            here = self._ray.util.get_node_ip_address()
            return f"the object store of node {here} is full: start it with a larger --object-store-memory"
        return f"the server's machine does not answer: {type(error).__name__}: {first_line(error)}"


class Parcels:
    """The depot as the server uses it, to hold a round's tensors. name: by which workers find it."""

    def __init__(self, name: str, depot: Depot) -> None:
        self.name, self._depot = name, depot
        self._numbers = count(1)

    @contextmanager
    def holding(self, tensors: Mapping[str, Tensor]) -> Iterator[str]:
        """Hold tensors until the block ends; yield the key under which workers find them."""
        import ray

        key = f"parcel-{next(self._numbers)}"
        arrays = {name: tensor.detach().contiguous().numpy() for name, tensor in tensors.items()}
        try:
            boxed = [ray.put(arrays)]
        except ray.exceptions.RayError as error:
            raise RunError(
                f"a round's tensors cannot be put into Ray's object store: {first_line(error)}"
            ) from error
        self._depot.ask("hold", key, boxed)
        try:
            yield key
        finally:
            with contextlib.suppress(RunError):
                self._depot.ask("drop", key, seconds=WORD_SECONDS)


@contextmanager
def open_depot(workplace: Path, states: Path) -> Iterator[Parcels]:
    """Run the depot of a run while the block lasts. workplace, states: its folders, as seen from this machine.

    Ray must be running or joined. The depot's process runs on this machine, reserves no CPU of the cluster, and is
    restarted if it dies.
    """
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    name = f"fed-asi-{secrets.token_hex(8)}"
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    options = {
        "name": name,
        "namespace": NAMESPACE,
        "num_cpus": 0,
        "max_restarts": -1,
        "max_concurrency": CALLS,
    }
    desk: Any = (
        ray.remote(Desk)
        .options(scheduling_strategy=here, **options)
        .remote(str(workplace.resolve()), str(states.resolve()))
    )
    try:
        yield Parcels(name, Depot(desk))
    finally:
        if ray.is_initialized():  # otherwise Flower has ended it, and asking would start another
            with contextlib.suppress(Exception):  # what is gone already cannot be ended
                ray.kill(desk)
