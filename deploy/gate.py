"""The SuperLink's gate: devices may use only the Fleet API; runs are started from the operator's network.

Flower 1.41 serves its Fleet, Control and Runtime APIs on one port, and the Control API needs no account: without this
gate, any device could start a run of its own code on all the others, or enrol further nodes.
"""

from __future__ import annotations

import functools
import socket

from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_OPEN = ("/v1/fleet/", "/health")
_REFUSAL = "only the Fleet API is open to devices"


class OperatorGate:
    """Refuses Control and Runtime calls that did not arrive through the operator's network or loopback."""

    def __init__(self, app: ASGIApp, operator_host: str) -> None:
        self.app = app
        self.operator_host = operator_host

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the call on, or answer 403; a connection that would stay open is closed before it opens."""
        if scope["type"] == "lifespan" or self.allows(scope):
            await self.app(scope, receive, send)
        elif scope["type"] == "http":
            await PlainTextResponse(_REFUSAL, 403)(scope, receive, send)
        else:
            await send({"type": "websocket.close"})

    def allows(self, scope: Scope) -> bool:
        """Return whether this call may pass, by its path, or else by the local address at which it arrived."""
        if str(scope["path"]).startswith(_OPEN):
            return True
        arrived_at = (scope.get("server") or ("", 0))[0]
        return arrived_at == "127.0.0.1" or arrived_at == _address(self.operator_host)


async def refuses_strangers(app: ASGIApp) -> bool:
    """Return whether an application refuses, as the gate does, a Control call that came from an unknown network."""
    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Message) -> None:
        sent.append(message)

    nobodys = {"server": ("192.0.2.1", 0), "client": ("192.0.2.2", 0)}  # addresses reserved by RFC 5737
    call = {"method": "POST", "path": "/v1/control/start-run", "query_string": b"", "headers": []}
    await app({"type": "http", **call, **nobodys}, receive, send)
    body = b"".join(message.get("body", b"") for message in sent)
    return bool(sent) and sent[0].get("status") == 403 and body == _REFUSAL.encode()


def _address(host: str) -> str | None:
    """Return the host's address, or None while its name cannot be resolved; then nobody is the operator."""
    try:
        return _looked_up(host)
    except OSError:
        return None


@functools.lru_cache(maxsize=1)
def _looked_up(host: str) -> str:
    return socket.gethostbyname(host)
