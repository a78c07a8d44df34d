"""A device's container: Flower's SuperNode and one worker, kept running as long as the container runs.

`python -m deploy.device --node-config 'partition-id=0 num-partitions=4 budget=65536'`

The SuperNode talks to the SuperLink; the worker (deploy/worker.py) trains. Each is restarted when it dies, so a failure
costs one reply and not the whole fleet.
"""

from __future__ import annotations

import argparse
import signal
import subprocess
import sys
import time
from types import FrameType

from deploy.keys import make_node_key, write
from deploy.settings import (
    AFRESH,
    ENROL,
    FLEET_HOST,
    OWN,
    PORT,
    TRUST,
    fail,
    insecure,
    say,
    wait_for,
    warn_insecure,
)

RUNTIME = "127.0.0.1:9094"  # between SuperNode and worker, inside the container
_PATIENCE_S = 120.0


def partition_of(node_config: str) -> int:
    """Return the partition id in a --node-config text."""
    pairs = dict(pair.split("=", 1) for pair in node_config.split())
    return int(pairs["partition-id"])


def enrol(device: int) -> bool:
    """Show this device's public key to the authority; return whether it was accepted in time."""
    public_key, new = make_node_key(OWN)
    if new:
        say(f"device {device}", "made its node key (ECDSA P-384); the private half stays in its own volume")
    write(ENROL / f"{device}.pub", public_key, 0o644)
    marker = TRUST / f"{device}.enrolled"
    return wait_for(lambda: marker.exists() and marker.read_bytes() == public_key, _PATIENCE_S)


def supernode_command(node_config: str) -> list[str]:
    """Return the command line of this device's SuperNode."""
    command = ["flower-supernode", "--superlink", f"{FLEET_HOST}:{PORT}", "--isolation", "process"]
    host, port = RUNTIME.split(":")
    command += ["--host", host, "--port", port, "--node-config", node_config]
    if insecure():
        return [*command, "--insecure"]
    command += ["--root-certificates", str(TRUST / "ca.crt")]
    return [*command, "--auth-supernode-private-key", str(OWN / "node")]


def supervise(device: int, commands: dict[str, list[str]]) -> int:
    """Keep every command running until this process is told to stop; return the exit code."""
    running: dict[str, subprocess.Popen[bytes]] = {}
    stopping = False

    def stop(_signal: int, _frame: FrameType | None) -> None:
        nonlocal stopping
        stopping = True

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    while not stopping:
        for name, command in commands.items():
            process = running.get(name)
            if process is not None and process.poll() is None:
                continue
            if process is not None:
                say(f"device {device}", f"{name} ended ({_how(process.returncode)}): starting it again")
                time.sleep(1.0)
            running[name] = subprocess.Popen(command)
        time.sleep(0.2)
    for process in running.values():
        process.terminate()
    for process in running.values():
        try:
            process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            process.kill()
    return 0


def _how(code: int) -> str:
    return f"killed by signal {-code}" if code < 0 else f"exit code {code}"


def main() -> int:
    """Run one device until its container is stopped."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--node-config", required=True)
    node_config = parser.parse_args().node_config
    device = partition_of(node_config)
    if insecure():
        warn_insecure(f"device {device}")
    elif not enrol(device):
        problem = (
            f"the SuperLink did not enrol it within {_PATIENCE_S:.0f} s: see docker compose logs superlink; "
        )
        return fail(f"device {device}", problem + AFRESH)
    worker = [sys.executable, "-m", "deploy.worker", "--device", str(device), "--runtime", RUNTIME]
    return supervise(device, {"SuperNode": supernode_command(node_config), "worker": worker})


if __name__ == "__main__":
    sys.exit(main())
