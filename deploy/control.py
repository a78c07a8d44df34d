"""Calls to the SuperLink's Control API, as `flwr` makes them."""

from __future__ import annotations

import socket
from pathlib import Path

from deploy.flwr_private import ControlHttpClient, RuntimeVersionHttpInterceptor
from deploy.settings import PORT


def control_client(host: str, certificate: Path | None) -> ControlHttpClient:
    """Return a client of the Control API; without a certificate it does not use TLS."""
    return ControlHttpClient.from_server_address(
        server_address=f"{host}:{PORT}",
        insecure=certificate is None,
        root_certificates=certificate.read_bytes() if certificate else None,
        interceptors=[RuntimeVersionHttpInterceptor(component_name="flwr CLI")],
    )


def reachable(host: str) -> bool:
    """Return whether something listens on the SuperLink's port."""
    try:
        with socket.create_connection((host, PORT), timeout=2):
            return True
    except OSError:
        return False
