"""Messages out and replies in, over a Flower grid; a reply that cannot be unpacked becomes a reason, not an error."""

from __future__ import annotations

from collections.abc import Collection, Iterator

import httpx
from flwr.app import Message, RecordDict
from flwr.serverapp import Grid

from fed_asi.devices.edge import readable
from fed_asi.errors import first_line
from fed_asi.flower.waiting import Waiting


class Mail:
    """The server's mailbox. Each answer is a Message, or the reason why it cannot be read."""

    def __init__(self, grid: Grid, waiting: Waiting) -> None:
        self._grid, self._waiting = grid, waiting

    def nodes(self) -> set[int]:
        """Return the ids of the nodes that are there."""
        return set(self._grid.get_node_ids())

    def send(self, content: RecordDict, node: int, kind: str) -> str:
        """Send one message; return its id, or nothing where the node is not there."""
        sent = list(self._grid.push_messages([Message(content, node, kind)]))
        return str(sent[0] or "") if sent else ""

    def replies(self, ids: Collection[str]) -> Iterator[tuple[str, Message | str]]:
        """Yield what has come for these messages by now, with the id of each."""
        if self._waiting.one_by_one:
            for one in ids:  # we know which message it answers; the device is not trusted on that
                yield from ((one, found) for found in self._alone(one)[:1])
            return
        for message in self._grid.pull_messages(list(ids)):
            if (one := message.metadata.reply_to_message_id) in ids:
                yield one, message

    def _alone(self, message_id: str) -> list[Message] | list[str]:
        try:
            return list(self._grid.pull_messages([message_id]))
        except (httpx.HTTPError, OSError):
            raise  # the SuperLink cannot be reached, which is no device's fault
        except Exception as error:  # Flower unpacks what a device sent, which may raise anything
            return [readable(f"its message cannot be unpacked: {first_line(error)}")]
