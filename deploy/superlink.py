"""The SuperLink's container: makes the fleet's authority at first start, enrols its devices, serves Flower.

`python -m deploy.superlink --devices N`
"""

from __future__ import annotations

import argparse
import os
import sys
import threading
import time
from pathlib import Path

from starlette.middleware import Middleware

from deploy.control import control_client, reachable
from deploy.gate import OperatorGate
from deploy.keys import make_authority, write
from deploy.settings import (
    AFRESH,
    ENROL,
    FLEET_HOST,
    OPERATOR_HOST,
    OWN,
    PORT,
    TRUST,
    insecure,
    say,
    wait_for,
    warn_insecure,
)

WHO = "superlink"


def enrol(devices: int) -> None:
    """Register every device's public key: the first key a device shows is the only one it may use."""
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
    say(WHO, f"error: device {device} shows another key than at its first start: refused; {AFRESH}")
    return False


def _register(device: int, path: Path) -> None:
    from flwr.cli.supernode.register import try_load_public_key
    from flwr.proto.control_pb2 import RegisterNodeRequest

    client = control_client("127.0.0.1", OWN / "ca.crt")
    try:
        client.RegisterNode(
            request=RegisterNodeRequest(public_key=try_load_public_key(path), name=f"device-{device}")
        )
    finally:
        client.close()
    write(TRUST / f"{device}.enrolled", path.read_bytes(), 0o644)
    say(WHO, f"device {device} enrolled")


def _serving() -> bool:
    return reachable("127.0.0.1")


def serve(arguments: list[str]) -> None:
    """Run Flower's SuperLink in this process, behind the operator's gate. Does not return."""
    from flwr.superlink import extensions
    from flwr.superlink.cli.flower_superlink import flower_superlink

    gate = Middleware(OperatorGate, operator_host=OPERATOR_HOST)
    extensions.get_middleware = lambda: (gate,)
    sys.argv = ["flower-superlink", *arguments]
    flower_superlink()


def main() -> None:
    """Start the SuperLink for `--devices` devices."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--devices", type=int, required=True)
    devices = parser.parse_args().devices
    common = ["--host", "0.0.0.0", "--port", str(PORT), "--isolation", "process"]
    common.append("--disable-runtime-dependency-installation")
    for stale in TRUST.glob("*.enrolled"):
        stale.unlink()
    if insecure():
        warn_insecure(WHO)
        serve(["--insecure", *common])
    if make_authority(OWN, [FLEET_HOST, OPERATOR_HOST, "localhost"]):
        say(WHO, "made the fleet's certificate authority and TLS certificate (ECDSA P-384)")
    write(TRUST / "ca.crt", (OWN / "ca.crt").read_bytes(), 0o644)
    threading.Thread(target=enrol, args=(devices,), daemon=True).start()
    tls = ["--ssl-ca-certfile", str(OWN / "ca.crt"), "--ssl-certfile", str(OWN / "server.pem")]
    serve([*tls, "--ssl-keyfile", str(OWN / "server.key"), "--enable-supernode-auth", *common])


if __name__ == "__main__":
    main()
