"""Which device each node is: every new node is asked, and its answer is accepted, or refused with a note."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from flwr.app import Message, RecordDict

from fed_asi.devices.edge import readable
from fed_asi.errors import RunError, UpdateError
from fed_asi.flower import messages
from fed_asi.flower.failures import meaning
from fed_asi.flower.mail import Mail
from fed_asi.flower.waiting import Waiting

LOOKS = 10  # pause this many times as long as a look took before the next


class Nodes:
    """The nodes of a fleet. of: partition id -> node id, for the devices that are connected.

    expected: devices of the fleet. note: gets a line on each node that is refused. A node that does not say which
    device it is, or names one that is connected already or not in the fleet, gets no jobs and is asked again before the
    next round.
    simulated: gives the device of each node, if they belong to a simulation in this process and it is known by now;
    None: they do not. With a simulation only as many nodes are asked as work at once.
    """

    def __init__(
        self,
        mail: Mail,
        expected: int,
        waiting: Waiting,
        note: Callable[[str], None],
        simulated: Callable[[], Mapping[int, int]] | None = None,
    ) -> None:
        self._mail, self._expected, self._waiting, self._note = mail, expected, waiting, note
        self._simulated, self._all_known = simulated, False
        self._asked: dict[str, int] = {}  # by message id: the node that has not answered yet
        self._known: set[int] = set()
        self._told: set[str] = set()
        self.of: dict[int, int] = {}

    def find(self) -> None:
        """Wait until every device is connected, or time is up, and ask each who it is.

        Raises RunError where none came, or where two claim to be the same device, as the run has not begun yet.
        """
        self._wait()
        # As many as work at once, so that every worker starts now; what it imports takes seconds.
        first = [] if self._simulated is None else self.ask(self._waiting.parallel or 1)
        for partition_id in (*first, *self.ask()):
            raise RunError(f"two nodes say they are device {partition_id}: give each its own partition-id")
        if not self.of:
            why = "".join(f"; {text}" for text in sorted(self._told)[:1])
            raise RunError(f"no device came within {self._waiting.nodes_seconds:.0f} s{why}")

    def _wait(self) -> None:
        """Wait until as many nodes are there as the fleet has devices, or time is up."""
        until = time.monotonic() + self._waiting.nodes_seconds
        while (began := time.monotonic()) < until and len(self._mail.nodes()) < self._expected:
            # A look at many nodes takes long, and they cannot come in meanwhile.
            self._waiting.pause(LOOKS * (time.monotonic() - began))

    def ask(self, most: int | None = None) -> list[int]:
        """Ask up to `most` unknown nodes who they are; forget those that have left.

        Returns the devices that a second node claimed to be. A node that does not answer is waited for once, when it
        is asked; a later answer is still accepted. Nodes of a simulation do not change.
        """
        if self._all_known:
            return []
        present = self._mail.nodes()
        self._known &= present
        self.of = {partition_id: node for partition_id, node in self.of.items() if node in present}
        self._asked = {sent: node for sent, node in self._asked.items() if node in present}
        fresh = set()
        for node in sorted(present - self._known - set(self._asked.values()))[:most]:
            if sent := self._mail.send(RecordDict(), node, "query"):
                self._asked[sent] = node
                fresh.add(sent)
        twice = self._answers(fresh)
        self._take_simulated()
        return twice

    def _take_simulated(self) -> None:
        """Accept all nodes as the simulation knows them, if it knows all and agrees with those that answered."""
        nodes = {} if self._simulated is None else self._simulated()
        of = {partition_id: node for node, partition_id in nodes.items()}
        if of.keys() == set(range(self._expected)) and self.of and self.of.items() <= of.items():
            self.of, self._known, self._all_known = of, set(nodes), True

    def _answers(self, fresh: set[str]) -> list[int]:
        """Take the answers that come; wait for those to the questions just asked."""
        twice = []
        until = time.monotonic() + self._waiting.start_seconds + 0.1 * len(fresh)
        while self._asked:
            for sent, found in self._mail.replies(set(self._asked)):
                twice += self._taken(self._asked.pop(sent), found)
            if not fresh & set(self._asked) or time.monotonic() > until:
                break
            self._waiting.pause()
        return twice

    def _taken(self, node: int, found: Message | str) -> list[int]:
        """Accept a node by its answer, or note why not. Returns the device it claims if another node is that one."""
        try:
            partition_id = self._read(found)
        except UpdateError as error:
            self._tell(f"node {node} gets no jobs: {error}")
            return []
        if partition_id in self.of:
            self._tell(f"node {node} gets no jobs: it says it is device {partition_id}, as another node does")
            return [partition_id]
        self._known.add(node)
        self.of[partition_id] = node
        return []

    def _read(self, found: Message | str) -> int:
        if isinstance(found, str):
            raise UpdateError(found)
        if found.has_error():
            raise UpdateError(readable(meaning(found.error.code, str(found.error.reason or ""))[1]))
        if not found.has_content():
            raise UpdateError("its answer is empty")
        who = messages.read_who(found.content)
        if who.partition_id >= self._expected:
            raise UpdateError(f"{who.host} says it is device {who.partition_id}, of {self._expected} from 0")
        return who.partition_id

    def _tell(self, text: str) -> None:
        """Note a line once, however often it comes up."""
        if text not in self._told:
            self._told.add(text)
            self._note(text)
