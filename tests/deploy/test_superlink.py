"""The SuperLink's container: nothing is served without the gate, and a device keeps the key it showed first."""

from __future__ import annotations

import asyncio
import inspect
import re
import sys
import threading
import warnings

import httpx
import pytest
import uvicorn

from deploy import control, flwr_private, settings, superlink
from deploy.gate import OperatorGate
from deploy.keys import make_node_key
from ports import free_port

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # Flower's own imports warn
    from flwr.superlink import main as flowers

pytestmark = pytest.mark.filterwarnings("ignore")

PLAIN = ["--insecure", "--isolation", "process", "--disable-runtime-dependency-installation"]


@pytest.fixture
def served(monkeypatch):
    """What would be served: (application, options), no port opened."""
    found = []
    monkeypatch.setattr(uvicorn, "run", lambda app, **options: found.append((app, options)))
    monkeypatch.setattr(sys, "argv", sys.argv)
    return found


def post(app, url: str) -> httpx.Response:
    async def ask() -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app)) as client:
            return await client.post(url)

    return asyncio.run(ask())


@pytest.mark.parametrize(
    "path", ["/v1/control/start-run", "/v1/control/register-node", "/v1/runtime/acquire-task"]
)
def test_what_is_served_refuses_devices_and_answers_the_operator(served, path):
    assert superlink.serve(PLAIN) == 0
    ((app, _),) = served
    refused = post(app, f"http://172.20.0.2:8443{path}")
    assert (refused.status_code, refused.text) == (403, "only the Fleet API is open to devices")
    assert post(app, f"http://127.0.0.1:8443{path}").status_code == 415  # Flower's: no protobuf was sent
    assert post(app, "http://172.20.0.2:8443/v1/fleet/pull-messages").status_code == 415


def test_the_server_gets_what_flower_would_give_it(served):
    superlink.serve([*PLAIN, "--host", "0.0.0.0", "--port", "8443"])
    ((_, options),) = served
    given = inspect.signature(uvicorn.Config).parameters
    assert options.keys() <= given.keys()
    assert (options["host"], options["port"], options["ssl_certfile"]) == ("0.0.0.0", 8443, None)


def refuse(*_given, **_named):
    raise AttributeError("'SuperLinkLifespanConfig' object has no attribute 'artifact_provider'")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            lambda patch: patch.delattr(flowers, "create_app"),
            r"Flower has no flwr\.superlink\.main\.create_app",
        ),
        (
            lambda patch: patch.setattr(flowers, "create_app", lambda _config: None),
            "takes 1 positional argument",
        ),
        (lambda patch: patch.setattr(flowers, "create_app", refuse), "no attribute 'artifact_provider'"),
        (
            lambda patch: patch.setitem(flwr_private.HOMES, "SuperLinkLifespan", "flwr.superlink.new"),
            r"Flower has no flwr\.superlink\.new\.SuperLinkLifespan",
        ),
        (
            lambda patch: patch.setattr(OperatorGate, "allows", lambda _gate, _scope: True),
            r"the gate lets a device's Control call pass",
        ),
    ],
    ids=["removed", "other arguments", "other settings", "moved", "open gate"],
)
def test_where_the_gate_is_not_certain_nothing_is_served(served, monkeypatch, capsys, change, said):
    change(monkeypatch)
    assert superlink.serve(PLAIN) == 1
    assert served == []
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("[")]
    assert line.startswith("[superlink] error: no port was opened: ")
    assert re.search(said, line)


def test_no_port_is_opened_beside_the_gate(served, monkeypatch):
    """These variables make Flower's application start a Control API of its own, on another port."""
    for name in ("FLWR_INTERNAL_GRPC_CONTROL_API", "FLWR_INTERNAL_GRPC_FLEET_API"):
        monkeypatch.setenv(getattr(flwr_private, name), "1")
    superlink.serve(PLAIN)
    ((app, _),) = served
    lifespan = app.app.state.superlink_lifespan
    lifespan.startup()
    try:
        assert lifespan.grpc_servers == []
    finally:
        lifespan.shutdown()


@pytest.mark.skipif(sys.platform != "linux", reason="127.0.0.2 is an address of Linux's loopback alone")
def test_the_port_itself(monkeypatch):
    """The real server: Control calls through 127.0.0.1 are answered, through another address refused."""
    servers = []

    def run(app, **options):
        servers.append(uvicorn.Server(uvicorn.Config(app, **options)))
        servers[0].run()

    port = free_port()
    monkeypatch.setattr(uvicorn, "run", run)
    monkeypatch.setattr(sys, "argv", sys.argv)
    monkeypatch.setattr(control, "PORT", port)
    thread = threading.Thread(
        target=superlink.serve, args=([*PLAIN, "--host", "0.0.0.0", "--port", str(port)],)
    )
    thread.start()
    try:
        assert settings.wait_for(lambda: bool(servers) and servers[0].started, 60)
        client = control.control_client("127.0.0.1", None)
        assert len(client.ListRuns(flwr_private.ListRunsRequest()).run_dict) == 0
        client.close()
        assert httpx.post(f"http://127.0.0.2:{port}/v1/control/list-runs").status_code == 403
    finally:
        for server in servers:
            server.should_exit = True
        thread.join(20)


@pytest.fixture
def volumes(tmp_path, monkeypatch):
    """The volumes of a SuperLink whose server is up; `registered` is what it was told."""
    for name in ("OWN", "ENROL", "TRUST"):
        (tmp_path / name).mkdir()
        monkeypatch.setattr(superlink, name, tmp_path / name)
    registered = []

    class Client:
        def RegisterNode(self, request):  # noqa: N802
            registered.append(request.name)

        def close(self):
            pass

    monkeypatch.setattr(superlink, "reachable", lambda _host: True)
    monkeypatch.setattr(superlink, "control_client", lambda _host, _certificate: Client())
    return tmp_path, registered


def show_key(folder, device: int, name: str) -> bytes:
    (folder / name).mkdir()
    public_key, _ = make_node_key(folder / name)
    (folder / "ENROL" / f"{device}.pub").write_bytes(public_key)
    return public_key


def test_every_device_is_enrolled_with_the_key_it_shows(volumes, capsys):
    folder, registered = volumes
    keys = [show_key(folder, device, f"device-{device}") for device in range(2)]
    superlink.enrol(2)
    assert registered == ["device-0", "device-1"]
    assert [(folder / "TRUST" / f"{device}.enrolled").read_bytes() for device in range(2)] == keys
    assert "all 2 devices are enrolled" in capsys.readouterr().out


def test_a_device_that_shows_another_key_later_is_refused(volumes, capsys):
    folder, registered = volumes
    show_key(folder, 0, "first")
    superlink.enrol(1)
    (folder / "TRUST" / "0.enrolled").unlink()  # as at every start
    show_key(folder, 0, "second")
    superlink.enrol(1)
    assert registered == ["device-0"]
    assert not (folder / "TRUST" / "0.enrolled").exists()
    assert "device 0 shows a different key from its first start: refused" in capsys.readouterr().out


@pytest.mark.parametrize("profile", ["", "insecure"])
def test_main_serves_with_tls_and_node_keys_unless_the_profile_says_so(volumes, monkeypatch, profile):
    folder, _ = volumes
    (folder / "TRUST" / "7.enrolled").write_bytes(b"of an earlier start")
    given = []
    monkeypatch.setenv("FED_ASI_PROFILES", profile)
    monkeypatch.setattr(sys, "argv", ["superlink", "--devices", "0"])
    monkeypatch.setattr(superlink, "serve", lambda arguments: given.append(arguments) or 3)
    assert superlink.main() == 3
    (arguments,) = given
    assert ("--insecure" in arguments) is bool(profile)
    assert ("--enable-supernode-auth" in arguments) is not bool(profile)
    assert arguments[arguments.index("--isolation") + 1] == "process"
    assert (folder / "TRUST" / "ca.crt").exists() is not bool(profile)
    assert not (folder / "TRUST" / "7.enrolled").exists()
