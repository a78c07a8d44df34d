"""The gate: who may call what, and that an application without a gate is detected."""

from __future__ import annotations

import asyncio
import socket

import pytest

from deploy import gate

OPERATOR = "172.21.0.2"


@pytest.fixture(autouse=True)
def network(monkeypatch: pytest.MonkeyPatch):
    """A network in which the operator's name is known, and no other."""

    def look_up(host: str) -> str:
        if host == "superlink-operator":
            return OPERATOR
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "gethostbyname", look_up)


class Flower:
    """Stands for Flower's application: it answers every call."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    async def __call__(self, scope, _receive, send):
        self.asked.append(scope["type"])
        if scope["type"] == "http":
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"done"})


def call(app, *, kind="http", path="/v1/control/start-run", arrived_at="172.20.0.2"):
    sent = []

    async def send(message):
        sent.append(message)

    scope = {"type": kind, "method": "POST", "path": path, "server": (arrived_at, 8443), "headers": []}
    asyncio.run(app(scope, None, send))
    return sent


@pytest.mark.parametrize(
    ("path", "arrived_at", "status"),
    [
        ("/v1/fleet/pull-messages", "172.20.0.2", 200),
        ("/health/ready", "172.20.0.2", 200),
        ("/v1/control/start-run", "172.20.0.2", 403),
        ("/v1/runtime/acquire-task", "172.20.0.2", 403),
        ("/v1/fleetx/../control/start-run", "172.20.0.2", 403),
        ("/v1/control/start-run", OPERATOR, 200),
        ("/v1/control/start-run", "127.0.0.1", 200),
    ],
)
def test_devices_get_the_fleet_api_and_the_operator_the_rest(path, arrived_at, status):
    flower = Flower()
    sent = call(gate.OperatorGate(flower, "superlink-operator"), path=path, arrived_at=arrived_at)
    assert sent[0]["status"] == status
    assert len(flower.asked) == (status == 200)


def test_while_the_operators_name_is_unknown_nobody_is_the_operator():
    flower = Flower()
    gated = gate.OperatorGate(flower, "nowhere")
    assert call(gated, arrived_at=OPERATOR)[0]["status"] == 403
    assert call(gated, arrived_at="127.0.0.1")[0]["status"] == 200


def test_a_socket_that_would_stay_open_is_closed():
    flower = Flower()
    assert call(gate.OperatorGate(flower, "superlink-operator"), kind="websocket") == [
        {"type": "websocket.close"}
    ]
    assert flower.asked == []


def test_the_applications_own_start_and_end_pass():
    flower = Flower()
    asyncio.run(gate.OperatorGate(flower, "superlink-operator")({"type": "lifespan"}, None, None))
    assert flower.asked == ["lifespan"]


def test_an_application_is_known_by_what_it_answers_a_stranger():
    assert asyncio.run(gate.refuses_strangers(gate.OperatorGate(Flower(), "superlink-operator")))
    assert not asyncio.run(gate.refuses_strangers(Flower()))


def test_an_application_that_refuses_in_its_own_words_is_not_gated():
    async def refusing(_scope, _receive, send):
        await send({"type": "http.response.start", "status": 403, "headers": []})
        await send({"type": "http.response.body", "body": b"log in first"})

    assert not asyncio.run(gate.refuses_strangers(refusing))
