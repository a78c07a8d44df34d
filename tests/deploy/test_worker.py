"""A device's worker: it answers for a training process that died, and gives the reason."""

from __future__ import annotations

import warnings

import pytest

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # Flower's own imports warn
    from flwr.app import Context, Message, RecordDict

    from deploy.flwr_private import ErrorCode
    from deploy.worker import LATE, Trainer, seconds_left
    from fed_asi.flower import worker as in_the_client


@pytest.mark.parametrize(
    ("code", "kills", "expected"),
    [
        (-9, 1, "killed: out of memory: the kernel stopped device 3 at its container's limit of 640 MiB"),
        (-9, 0, "killed: signal 9 ended the training process of device 3"),
        (75, 0, "timeout: device 3 passed its deadline, its training process was ended"),
        (1, 0, "killed: the training process of device 3 ended with exit code 1"),
    ],
)
def test_cause_of_death(monkeypatch, code, kills, expected):
    monkeypatch.setattr("deploy.worker.killed_by_kernel_count", lambda: kills)
    monkeypatch.setattr("deploy.worker.limit_bytes", lambda: 640 * 2**20)
    assert Trainer(3).cause_of_death(code, 0) == expected


def test_a_client_that_hangs_ends_itself_with_the_code_known_here():
    assert LATE == in_the_client.LATE


def test_sender_waits_until_the_message_expires(message):
    assert 0 < seconds_left(message) <= message.metadata.ttl


class Process:
    """Stands for the training process."""

    exitcode = -9

    def __init__(self, *, alive: bool = True) -> None:
        self.alive, self.killed = alive, False

    def is_alive(self) -> bool:
        return self.alive

    def join(self, timeout: float) -> None:
        pass

    def kill(self) -> None:
        self.killed = True


class Pipe:
    """The pipe to it: `answer` None is a process that never answers."""

    def __init__(self, answer: object) -> None:
        self.answer = answer

    def send(self, _content: object) -> None:
        if self.answer == "broken":
            raise BrokenPipeError

    def poll(self, _seconds: float) -> bool:
        return self.answer is not None

    def recv(self) -> object:
        if self.answer is None:
            raise EOFError
        return self.answer


@pytest.fixture
def started(monkeypatch) -> list[int]:
    """The devices whose training process was started again."""
    found: list[int] = []
    fresh = (Process(), Pipe("fresh"))
    monkeypatch.setattr(Trainer, "start", lambda self: found.append(self.device) or fresh)
    monkeypatch.setattr("deploy.worker.killed_by_kernel_count", lambda: 0)
    return found


CONTEXT = Context(1, 2, {}, RecordDict(), {})


def test_dead_training_process_is_answered_for_and_started_again(message: Message, started):
    trainer = Trainer(2, Process(), Pipe("broken"))
    reply, kept = trainer.answer(None, None, message, CONTEXT)
    assert reply.error.code == ErrorCode.CLIENT_APP_CRASHED
    assert reply.error.reason.startswith("killed: signal 9")
    assert kept is None
    assert started == [2]


def test_a_process_that_never_answers_is_killed_and_answered_for(message: Message, started):
    process = Process()
    reply, _ = Trainer(2, process, Pipe(None)).answer(None, None, message, CONTEXT)
    assert process.killed
    assert reply.error.reason.startswith("killed: signal 9")
    assert started == [2]


def test_an_answer_is_handed_on_and_nothing_is_started(message: Message, started):
    assert Trainer(2, Process(), Pipe(("reply", "context"))).answer(None, None, message, CONTEXT) == (
        "reply",
        "context",
    )
    assert started == []


def test_a_process_found_dead_is_replaced_before_it_is_asked(message: Message, started):
    trainer = Trainer(2, Process(alive=False), Pipe("broken"))
    assert trainer.answer(None, None, message, CONTEXT) == "fresh"
    assert started == [2]
