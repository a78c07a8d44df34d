"""The SuperLink's gate: devices may use the Fleet API only; runs are started from the operator's network.

Flower 1.41 serves its Fleet, Control and Runtime APIs on one port, and asks no account for the Control API:
without this gate any device could start a run of its own code on all the others, or enrol further nodes.
"""

from __future__ import annotations

import functools
import socket

from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

_OPEN = ("/v1/fleet/", "/health")


class OperatorGate:
    """Refuses Control and Runtime calls that did not come in through the operator's network or loopback."""

    def __init__(self, app: ASGIApp, operator_host: str) -> None:
        self.app = app
        self.operator_host = operator_host

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the call on, or answer 403."""
        if scope["type"] == "http" and not self.allows(scope):
            await PlainTextResponse("only the Fleet API is open to devices", 403)(scope, receive, send)
            return
        await self.app(scope, receive, send)

    def allows(self, scope: Scope) -> bool:
        """Return whether this call may pass: by its path, else by the local address it arrived at."""
        if str(scope["path"]).startswith(_OPEN):
            return True
        server = scope.get("server") or ("", 0)
        return server[0] in ("127.0.0.1", _address(self.operator_host))


@functools.lru_cache(maxsize=1)
def _address(host: str) -> str:
    return socket.gethostbyname(host)
