"""The process that runs a device's ClientApp: it answers every message, even if the app fails."""

from __future__ import annotations

import pickle
import signal
import tracemalloc
import warnings
from types import SimpleNamespace

import pytest

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # Flower's own imports warn
    from flwr.app import Context, Message, RecordDict

    from deploy import flwr_private, trainer

RUN = SimpleNamespace(fab_id="fed_asi/fed-asi", fab_version="0.1.0")
CONTEXT = Context(1, 2, {}, RecordDict(), {})


def echo(message: Message, context: Context) -> Message:
    return Message(message.content, reply_to=message)


def failing(message: Message, context: Context) -> Message:
    raise ZeroDivisionError("seven")


APPS = {"echo": echo, "failing": failing}


def fab(app: str) -> SimpleNamespace:
    return SimpleNamespace(hash_str=app, content=b"bundle")


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The bundles that were installed; Flower's installation and the kernel's knob are stood in for."""
    found: list[str] = []

    def load_from(**_where: object):
        return lambda _id, _version, name: found.append(name) or APPS[name]

    monkeypatch.setattr(flwr_private, "install_from_fab", lambda _content, **_how: None, raising=False)
    monkeypatch.setattr(flwr_private, "get_load_client_app_fn", load_from, raising=False)
    monkeypatch.setattr(trainer, "_offer_to_the_kernel", lambda: None)
    monkeypatch.setattr(trainer, "_BALLAST", [])
    return found


class Pipe:
    """Brings messages as a pipe does, pickled, and is closed after the last."""

    def __init__(self, messages: list[object]) -> None:
        self.waiting = [pickle.dumps(message) for message in messages]
        self.sent: list[tuple[Message, Context]] = []

    def recv(self) -> object:
        if not self.waiting:
            raise EOFError
        return pickle.loads(self.waiting.pop(0))

    def send(self, answer: tuple[Message, Context]) -> None:
        self.sent.append(pickle.loads(pickle.dumps(answer)))


def answers(*messages: tuple[object, ...]) -> list[tuple[Message, Context]]:
    """Return what the process sends back to (run, bundle, message, context)."""
    pipe = Pipe(list(messages))
    handler = signal.getsignal(signal.SIGINT)
    try:
        trainer.trainer_main(pipe)
    finally:
        signal.signal(signal.SIGINT, handler)
    return pipe.sent


def test_every_message_is_answered_by_an_app_installed_once(installed, message):
    several = answers((RUN, fab("echo"), message, CONTEXT), (RUN, fab("echo"), message, CONTEXT))
    assert [reply.content["x"]["n"] for reply, _ in several] == [1, 1]
    assert [context.node_id for _, context in several] == [2, 2]
    assert installed == ["echo"]


def test_an_app_that_fails_is_answered_for_and_the_next_message_too(installed, message, capsys):
    bad, good = answers((RUN, fab("failing"), message, CONTEXT), (RUN, fab("echo"), message, CONTEXT))
    assert bad[0].error.code == flwr_private.ErrorCode.CLIENT_APP_RAISED_EXCEPTION
    assert bad[0].error.reason == "ZeroDivisionError: seven"
    assert good[0].has_content()
    assert "Traceback" in capsys.readouterr().err


def test_a_bundle_that_cannot_be_installed_is_an_answer_too(installed, message, capsys):
    ((reply, _),) = answers((RUN, fab("nowhere"), message, CONTEXT))
    assert reply.error.reason == "KeyError: 'nowhere'"


@pytest.mark.parametrize(("kind", "carried"), [("train", True), ("query", False)])
def test_a_promise_is_broken_on_request_while_it_trains(installed, message, monkeypatch, kind, carried):
    monkeypatch.setenv("FED_ASI_BALLAST_MIB", "2")
    message.metadata.message_type = kind
    tracemalloc.start()
    try:
        answers((RUN, fab("echo"), message, CONTEXT))
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert (held >= 2 * 2**20) is carried
