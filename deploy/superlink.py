"""The SuperLink's container: creates the fleet's authority at the first start, enrols its devices, serves Flower.

`python -m deploy.superlink --devices N`
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import sys
import threading
import time
from pathlib import Path
from typing import Any

import uvicorn

from deploy import flwr_private
from deploy.control import control_client, reachable
from deploy.gate import OperatorGate, refuses_strangers
from deploy.keys import make_authority, write
from deploy.settings import (
    AFRESH,
    ENROL,
    FLEET_HOST,
    OPERATOR_HOST,
    OWN,
    PORT,
    TRUST,
    fail,
    insecure,
    say,
    wait_for,
    warn_insecure,
)

WHO = "superlink"


def enrol(devices: int) -> None:
    """Register every device's public key; the first key that a device shows is the only one it may use."""
    if not wait_for(_serving, 60):
        say(WHO, "error: the SuperLink did not start within 60 s")
        os._exit(1)
    waiting = set(range(devices))
    while waiting:
        for device in sorted(waiting):
            path = ENROL / f"{device}.pub"
            if path.exists():
                waiting.discard(device)
                if _known(device, path.read_bytes()):
                    _register(device, path)
        time.sleep(0.2)
    say(WHO, f"all {devices} devices are enrolled; no further node is accepted")


def _known(device: int, public_key: bytes) -> bool:
    kept = OWN / f"{device}.pub"
    if not kept.exists():
        write(kept, public_key, 0o644)
    if kept.read_bytes() == public_key:
        return True
    say(WHO, f"error: device {device} shows a different key from its first start: refused; {AFRESH}")
    return False


def _register(device: int, path: Path) -> None:
    public_key = flwr_private.try_load_public_key(path)
    request = flwr_private.RegisterNodeRequest(public_key=public_key, name=f"device-{device}")
    client = control_client("127.0.0.1", OWN / "ca.crt")
    try:
        client.RegisterNode(request=request)
    finally:
        client.close()
    write(TRUST / f"{device}.enrolled", path.read_bytes(), 0o644)
    say(WHO, f"device {device} enrolled")


def _serving() -> bool:
    return reachable("127.0.0.1")


def application(arguments: list[str]) -> tuple[OperatorGate, dict[str, Any]]:
    """Return what `flower-superlink` would serve with these arguments, behind the gate, and the server's options.

    The gate is put around Flower's application, not passed to Flower, so it cannot be left out.
    """
    for opens_a_port in ("FLWR_INTERNAL_GRPC_CONTROL_API", "FLWR_INTERNAL_GRPC_FLEET_API"):
        os.environ.pop(getattr(flwr_private, opens_a_port), None)  # would open a port beside the gate
    sys.argv = ["flower-superlink", *arguments]
    config = flwr_private._parse_superlink_lifespan_config()
    gated = OperatorGate(flwr_private.create_app(config, flwr_private.SuperLinkLifespan), OPERATOR_HOST)
    options = {
        "host": config.host,
        "port": config.port,
        "ssl_keyfile": config.ssl_keyfile,
        "ssl_certfile": config.ssl_certfile,
        "log_config": flwr_private.get_uvicorn_log_config(flwr_private.console_handler.level),
        "log_level": flwr_private.console_handler.level,
        "access_log": flwr_private.console_handler.level <= logging.DEBUG,  # each device calls every 3 s
    }
    return gated, options


def serve(arguments: list[str]) -> int:
    """Run Flower's SuperLink in this process, behind the operator's gate, and return the exit code.

    No port opens until the application that will be served has refused a stranger's call.
    """
    try:
        gated, options = application(arguments)
    except (ImportError, AttributeError, TypeError) as error:
        problem = f"no port was opened: Flower differs from what this SuperLink was made for: {error}"
        return fail(WHO, f"{problem}; install flwr {flwr_private.KNOWN}", code=1)
    if not asyncio.run(refuses_strangers(gated)):
        problem = "no port was opened: the gate lets a device's Control call pass; correct deploy/gate.py"
        return fail(WHO, problem, code=1)
    uvicorn.run(gated, **options)
    return 0


def main() -> int:
    """Run the SuperLink for `--devices` devices; return the exit code."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--devices", type=int, required=True)
    devices = parser.parse_args().devices
    common = ["--host", "0.0.0.0", "--port", str(PORT), "--isolation", "process"]
    common.append("--disable-runtime-dependency-installation")
    for stale in TRUST.glob("*.enrolled"):
        stale.unlink()
    if insecure():
        warn_insecure(WHO)
        return serve(["--insecure", *common])
    if make_authority(OWN, [FLEET_HOST, OPERATOR_HOST, "localhost"]):
        say(WHO, "made the fleet's certificate authority and TLS certificate (ECDSA P-384)")
    write(TRUST / "ca.crt", (OWN / "ca.crt").read_bytes(), 0o644)
    threading.Thread(target=enrol, args=(devices,), daemon=True).start()
    tls = ["--ssl-ca-certfile", str(OWN / "ca.crt"), "--ssl-certfile", str(OWN / "server.pem")]
    return serve([*tls, "--ssl-keyfile", str(OWN / "server.key"), "--enable-supernode-auth", *common])


if __name__ == "__main__":
    sys.exit(main())
