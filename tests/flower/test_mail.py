"""Messages out and replies in: each reply with its message, and reasons for what cannot be unpacked."""

from __future__ import annotations

import httpx
import pytest

from fed_asi.flower.mail import Mail
from memory_grid import MemoryGrid, Message, RecordDict, brief


def sent(mail: Mail, grid: MemoryGrid, count: int) -> list[str]:
    return [mail.send(RecordDict(), node, "query") for node in sorted(grid.configs)[:count]]


@pytest.mark.parametrize("one_by_one", [False, True])
def test_each_reply_comes_with_its_message_once(one_by_one: bool) -> None:
    grid = MemoryGrid.of(3)
    mail = Mail(grid, brief(one_by_one=one_by_one))
    ids = sent(mail, grid, 3)
    found = dict(mail.replies(ids))
    assert set(found) == set(ids)
    for one in ids:
        message = found[one]
        assert isinstance(message, Message)
        assert message.metadata.reply_to_message_id == one
    assert list(mail.replies(ids)) == []


def test_a_node_that_is_gone_takes_no_message() -> None:
    grid = MemoryGrid.of(2)
    grid.lost.add(grid.node_of(0))
    mail = Mail(grid, brief())
    assert mail.nodes() == {grid.node_of(1)}
    assert mail.send(RecordDict(), grid.node_of(0), "query") == ""


def test_one_by_one_a_device_cannot_answer_for_another() -> None:
    grid = MemoryGrid.of(2)
    mail = Mail(grid, brief(one_by_one=True))
    first, second = sent(mail, grid, 2)

    def forged(message: Message, _context: object) -> Message:
        reply = Message(RecordDict(), reply_to=message)
        reply.metadata.__dict__["_reply_to_message_id"] = second
        return reply

    grid.instead[min(grid.configs)] = forged
    assert [one for one, _ in mail.replies([first, second])] == [first, second]


def test_what_cannot_be_unpacked_is_a_reason_and_a_lost_server_an_error() -> None:
    grid = MemoryGrid.of(2)
    grid.broken.add(min(grid.configs))
    alone = Mail(grid, brief(one_by_one=True))
    first, second = sent(alone, grid, 2)
    found = dict(alone.replies([first, second]))
    assert found[first] == "its message cannot be unpacked: Unexpected set of `children`."
    assert isinstance(found[second], Message)

    class Cut(MemoryGrid):
        def pull_messages(self, message_ids: object) -> list[Message]:
            raise httpx.ConnectError("no SuperLink")

    with pytest.raises(httpx.ConnectError):
        list(Mail(Cut.of(1), brief(one_by_one=True)).replies(["message-1"]))
