"""The runner's container: starts the run, hosts its ServerApp, follows it, and exits with the run's true result.

`python -m deploy.runner --fleet /fleet/fleet.toml`

`flwr run` itself exits 0 even when a run fails, so the exit code is taken from the run's own records. A runner that was
killed continues where the records end; if the run is finished, it prints the table again.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import FrameType

from rich.console import Console

from deploy.control import control_client, reachable
from deploy.flwr_private import (
    ControlHttpClient,
    ListNodesRequest,
    ListRunsRequest,
    Status,
    StopRunRequest,
)
from deploy.settings import (
    AFRESH,
    OPERATOR_HOST,
    PORT,
    RUNS,
    TRUST,
    fail,
    insecure,
    say,
    wait_for,
    warn_insecure,
)
from fed_asi.errors import FedAsiError, RunError
from fed_asi.fleets.config import RunConfig
from fed_asi.fleets.file import load_config
from fed_asi.results import report
from fed_asi.results.now import Now, read_now, write_now
from fed_asi.results.schema import FILE_NAME
from fed_asi.results.store import RunStore

WHO = "runner"
_APP = Path(os.environ.get("FED_ASI_APP", "/app"))
_CONNECTION = "fleet"
_START_S = 120.0


def certificate() -> Path | None:
    """Return the authority's certificate, or None with the profile "insecure"."""
    return None if insecure() else TRUST / "ca.crt"


def recorded(folder: Path, config: RunConfig) -> int | None:
    """Return the exit code of the run in `folder`, or None if it has yet to be started or resumed.

    Raises RunError if the folder holds a run with other settings.
    """
    if not (folder / FILE_NAME).exists():
        return None
    with RunStore.read(folder) as store:
        if store.config() != config:
            raise RunError(
                f"the volume holds a run {config.name!r} of other settings: rename yours, or {AFRESH}"
            )
        if store.run().status == "finished":
            say(WHO, f"the run {config.name!r} is there already, its table follows; {AFRESH}")
            return store.exit_code()
    say(WHO, f"continuing the unfinished run {config.name!r}")
    return None


def connect(devices: int) -> ControlHttpClient:
    """Return a client of the SuperLink once all devices are connected, or those that connected in time.

    Raises RunError if the SuperLink does not answer.
    """
    _tell(Now("waiting for the SuperLink"))
    if not wait_for(lambda: reachable(OPERATOR_HOST), _START_S):
        raise RunError(f"no SuperLink within {_START_S:.0f} s: see docker compose logs superlink")
    client = control_client(OPERATOR_HOST, certificate())
    for run in client.ListRuns(ListRunsRequest()).run_dict.values():
        if run.status.status != Status.FINISHED:
            say(WHO, f"stopping what an earlier runner left behind (run {run.run_id})")
            client.StopRun(StopRunRequest(run_id=run.run_id))
    if not wait_for(lambda: _all_there(client, devices), _START_S, interval=1.0):
        say(WHO, f"{_online(client)} of {devices} devices came within {_START_S:.0f} s: starting with them")
    _tell(Now("starting the run: the image's app is packed, and Flower starts it"))
    return client


def _all_there(client: ControlHttpClient, devices: int) -> bool:
    found = _online(client)
    _tell(Now("devices that have come", found, devices))
    return found >= devices


def _tell(now: Now) -> None:
    """Report what is being done in the log and on the page, once."""
    if read_now(RUNS) != now:
        say(WHO, now.text)
        write_now(RUNS, now)


def _online(client: ControlHttpClient) -> int:
    return sum(node.status == "online" for node in client.ListNodes(ListNodesRequest()).nodes_info)


def follow(client: ControlHttpClient, fleet: str) -> str:
    """Run the fleet with `flwr run`, copying its log here; return Flower's status, such as "finished:completed"."""
    _write_flower_config(Path(os.environ["FLWR_HOME"]))
    address = f"{OPERATOR_HOST}:{PORT}"
    trust = ["--insecure"] if insecure() else ["--root-certificates", str(certificate())]
    executor = subprocess.Popen(["flower-superexec", "--runtime-api-address", address, *trust])
    try:
        config = f'fleet="{fleet}" resume=true deployed=true'
        command = ["flwr", "run", str(_APP), _CONNECTION, "--stream", "--run-config", config]
        subprocess.run(command, check=False)
        return _word(client)
    finally:
        executor.terminate()
        try:
            executor.wait(timeout=5)
        except subprocess.TimeoutExpired:
            executor.kill()


def _write_flower_config(home: Path) -> None:
    home.mkdir(parents=True, exist_ok=True)
    trust = "insecure = true" if insecure() else f'root-certificates = "{certificate()}"'
    lines = [f"[superlink.{_CONNECTION}]", f'address = "{OPERATOR_HOST}:{PORT}"', trust, ""]
    (home / "config.toml").write_text("\n".join(lines))


def _word(client: ControlHttpClient) -> str:
    runs = sorted(client.ListRuns(ListRunsRequest()).run_dict.values(), key=lambda run: run.pending_at)
    return f"{runs[-1].status.status}:{runs[-1].status.sub_status}" if runs else "never started"


def show(folder: Path) -> None:
    """Print the run's table and write its report beside its records."""
    report.show(folder, Console(width=140))
    report.write([folder])
    port = os.environ.get("FED_ASI_PORT", "8080")
    say(WHO, f"page: docker compose up page, then http://localhost:{port}")


def run(fleet: str) -> int:
    """Do the fleet's run, or the rest of it; return the exit code that follows from its records."""
    config = load_config(fleet)
    folder = RUNS / config.name
    code = recorded(folder, config)
    if code is None:
        client = connect(config.num_devices)
        started = time.monotonic()
        word = follow(client, fleet)
        say(WHO, f"the run took {time.monotonic() - started:.1f} s; Flower says {word}")
        if not (folder / FILE_NAME).exists():
            raise RunError("the run failed before its first record: see the log above")
        with RunStore.read(folder) as store:
            code = store.exit_code()
    show(folder)
    return code


def main() -> int:
    """Run the fleet; return 0 when every round happened and every device is accounted for."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--fleet", required=True)
    if insecure():
        warn_insecure(WHO)
    try:
        return run(parser.parse_args().fleet)
    except FedAsiError as error:
        return fail(WHO, str(error))


def _stop(_signal: int, _frame: FrameType | None) -> None:
    raise SystemExit(143)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, _stop)
    sys.exit(main())
