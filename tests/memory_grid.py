"""A Flower grid within this process: its nodes run the devices' real handlers, without Ray, in a shuffled order.

It also does what Flower's simulation engine does around a handler: messages are pickled both ways, each node keeps its
Context, and an exception in a handler comes back as an error reply in Flower's words.
"""

from __future__ import annotations

import pickle
import random
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # Flower's own imports warn
    from flwr.app import Context, Message, RecordDict
    from flwr.app.error import Error
    from flwr.clientapp import ClientApp
    from flwr.clientapp.client_app import ClientAppException
    from flwr.serverapp import Grid
    from flwr.supercore.task_identity import TaskIdentity

    from fed_asi.flower.client import client_app
    from fed_asi.flower.executor import FlowerExecutor
    from fed_asi.flower.waiting import Waiting

from fed_asi.fleets.config import RunConfig
from fed_asi.results.progress import Unwatched
from fed_asi.results.store import RunStore
from fed_asi.rounds.run import conduct
from fed_asi.workplace.address import address_of
from fed_asi.workplace.place import Workplace

Handler = Callable[[Message, Context], Message | None]  # None: no reply ever comes


@dataclass
class MemoryGrid(Grid):
    """A fleet of nodes. configs: what each node was started with, by node id. app: what they run.

    instead: what a node does in place of the app. lost: ids of nodes that are gone; what they were sent has Flower's
    error reply. broken: nodes whose messages cannot even be unpacked.
    """

    configs: Mapping[int, Mapping[str, Any]]
    app: ClientApp = field(default_factory=client_app)
    instead: dict[int, Handler] = field(default_factory=dict)
    lost: set[int] = field(default_factory=set)
    broken: set[int] = field(default_factory=set)
    seed: int = 0

    def __post_init__(self) -> None:
        TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = 1, 1, 1
        self._random, self._numbers = random.Random(self.seed), count(1)
        self._waiting: dict[str, Message] = {}
        self.contexts = {
            node: Context(1, node, dict(config), RecordDict(), {}) for node, config in self.configs.items()
        }
        self.sent: list[tuple[int, str]] = []  # every message: its node and type

    @classmethod
    def of(cls, devices: int, **settings: Any) -> MemoryGrid:
        """Return a fleet whose node ids say nothing of its devices' numbers."""
        configs = {7000 - 13 * i: {"partition-id": i, "num-partitions": devices} for i in range(devices)}
        return cls(configs, **settings)

    def node_of(self, partition_id: int) -> int:
        """Return the node of a device."""
        return next(
            node for node, config in self.configs.items() if config.get("partition-id") == partition_id
        )

    def get_node_ids(self) -> Iterable[int]:
        return [node for node in self.configs if node not in self.lost]

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        ids = []
        for message in messages:
            node = message.metadata.dst_node_id
            if node in self.lost:
                continue
            ids.append(f"message-{next(self._numbers)}")
            message.metadata.__dict__["_message_id"] = ids[-1]
            self._waiting[ids[-1]] = pickle.loads(pickle.dumps(message))
            self.sent.append((node, message.metadata.message_type))
        return ids

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        waiting = [one for one in message_ids if one in self._waiting]
        self._random.shuffle(waiting)
        answers = [self._answer(self._waiting.pop(one)) for one in waiting]
        return [pickle.loads(pickle.dumps(answer)) for answer in answers if answer is not None]

    def _answer(self, message: Message) -> Message | None:
        node = message.metadata.dst_node_id
        if node in self.lost:
            return Message(Error(5, "Node Unavailable"), reply_to=message)
        if node in self.broken:
            raise ValueError("Unexpected set of `children`.")
        context = self.contexts[node]
        try:
            return self.instead.get(node, self._handle)(message, context)
        except Exception as raised:
            error = ClientAppException(str(raised))
            return Message(Error(2, str(type(error)) + ":<'" + str(error) + "'>"), reply_to=message)

    def _handle(self, message: Message, context: Context) -> Message:
        return self.app(message=message, context=context)

    def set_run(self, run: Any) -> None:
        raise NotImplementedError

    @property
    def run(self) -> Any:
        raise NotImplementedError

    def create_message(self, *_args: Any, **_named: Any) -> Message:
        raise NotImplementedError

    def send_and_receive(self, *_args: Any, **_named: Any) -> Iterable[Message]:
        raise NotImplementedError


def brief(**changes: Any) -> Waiting:
    """Return a server that waits for nobody longer than a test may take."""
    fixed = {"nodes_seconds": 0.2, "poll_seconds": 0.0, "start_seconds": 0.2, "grace_seconds": 0.0}
    return Waiting(**{"stop": lambda: False, "restart_seconds": 0.0, **fixed, **changes})


def executor_on(
    grid: Grid, place: Workplace, note: Callable[[str], None] = lambda _text: None, **waiting: Any
) -> FlowerExecutor:
    """Return the server's executor for a run in this workplace."""
    states = place.folder.parent / "devices"  # where a simulation's workers leave word
    run = address_of(place.folder, place.config)
    return FlowerExecutor(grid, place.config.num_devices, run, brief(**waiting), states, note)


def run_in_memory(config: RunConfig, place: Workplace, folder: Path, grid: Grid, **waiting: Any) -> None:
    """Do a whole run on a grid, as the server does, and record it in `folder`."""
    with RunStore.create(folder, config) as store:
        executor = executor_on(grid, place, store.note, **waiting)
        executor.find_devices()
        conduct(place, store, executor, Unwatched())
