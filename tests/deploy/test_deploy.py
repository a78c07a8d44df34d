"""What runs in the containers, as far as it can be tested without any: keys, gate, page, memory, worker."""

from __future__ import annotations

import asyncio
import os
import signal
import stat
import threading
import urllib.error
import urllib.request
import warnings
from http.server import ThreadingHTTPServer
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from deploy import gate, keys, memory, page, settings
from deploy.device import partition_of, supernode_command
from fed_asi.errors import RunError
from fed_asi.fleets.file import load_config
from fed_asi.results.schema import RoundRecord
from fed_asi.results.store import RunStore

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # Flower's own imports warn
    from flwr.app import ConfigRecord, Context, Message, RecordDict
    from flwr.common.constant import ErrorCode
    from flwr.supercore.task_identity import TaskIdentity

    from deploy import runner
    from deploy.worker import Trainer, seconds_left

FLEET = Path(__file__).parents[2] / "experiments" / "fleets" / "compose.toml"


def test_authority_is_made_once_and_signs_its_server(tmp_path):
    assert keys.make_authority(tmp_path, ["superlink", "superlink-operator"])
    ca = x509.load_pem_x509_certificate((tmp_path / "ca.crt").read_bytes())
    server = x509.load_pem_x509_certificate((tmp_path / "server.pem").read_bytes())
    server.verify_directly_issued_by(ca)
    names = server.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["superlink", "superlink-operator"]
    for secret in ("ca.key", "server.key"):
        assert stat.S_IMODE((tmp_path / secret).stat().st_mode) == 0o600
    before = (tmp_path / "server.pem").read_bytes()
    assert not keys.make_authority(tmp_path, ["superlink"])
    assert (tmp_path / "server.pem").read_bytes() == before


def test_node_key_is_p384_private_and_kept(tmp_path):
    public_key, new = keys.make_node_key(tmp_path)
    assert new
    assert keys.make_node_key(tmp_path) == (public_key, False)
    loaded = serialization.load_ssh_public_key(public_key)
    assert isinstance(loaded, ec.EllipticCurvePublicKey)
    assert loaded.curve.name == "secp384r1"
    assert stat.S_IMODE((tmp_path / "node").stat().st_mode) == 0o600


@pytest.mark.parametrize(
    ("path", "arrived_at", "passes"),
    [
        ("/v1/fleet/pull-messages", "172.20.0.2", True),
        ("/health/ready", "172.20.0.2", True),
        ("/v1/control/start-run", "172.20.0.2", False),
        ("/v1/runtime/acquire-task", "172.20.0.2", False),
        ("/v1/fleetx/../control/start-run", "172.20.0.2", False),
        ("/v1/control/start-run", "172.21.0.2", True),
        ("/v1/control/start-run", "127.0.0.1", True),
    ],
)
def test_gate_opens_the_fleet_api_to_devices_and_the_rest_to_the_operator(
    monkeypatch, path, arrived_at, passes
):
    monkeypatch.setattr(gate, "_address", lambda _host: "172.21.0.2")
    sent, passed = [], []

    async def app(scope, receive, send):
        passed.append(scope)

    async def send(message):
        sent.append(message)

    scope = {"type": "http", "method": "POST", "path": path, "server": (arrived_at, 8443), "headers": []}
    asyncio.run(gate.OperatorGate(app, "superlink-operator")(scope, None, send))
    assert bool(passed) is passes
    if not passes:
        assert sent[0]["status"] == 403


@pytest.mark.parametrize(
    ("files", "limit", "kills"),
    [
        ({"v2/memory.max": "671088640\n", "v2/memory.events": "low 0\noom 3\noom_kill 2\n"}, 671088640, 2),
        ({"v2/memory.max": "max\n", "v2/memory.events": "oom_kill 0\n"}, None, 0),
        (
            {"v1/memory.limit_in_bytes": "733\n", "v1/memory.oom_control": "under_oom 0\noom_kill 1\n"},
            733,
            1,
        ),
        ({"v1/memory.limit_in_bytes": "9223372036854771712\n"}, None, 0),
        ({}, None, 0),
    ],
)
def test_memory_reads_both_versions_of_control_groups(tmp_path, files, limit, kills):
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    assert memory.limit_bytes(tmp_path / "v1", tmp_path / "v2") == limit
    assert memory.killed_by_kernel_count(tmp_path / "v1", tmp_path / "v2") == kills


def test_supernode_speaks_plainly_only_under_the_profile(monkeypatch):
    config = "partition-id=7 num-partitions=8 budget=65536"
    assert partition_of(config) == 7
    monkeypatch.delenv("FED_ASI_PROFILES", raising=False)
    assert "--insecure" not in supernode_command(config)
    assert "--auth-supernode-private-key" in supernode_command(config)
    monkeypatch.setenv("FED_ASI_PROFILES", "insecure")
    assert "--insecure" in supernode_command(config)


@pytest.mark.parametrize(
    ("code", "kills", "expected"),
    [
        (-9, 1, "killed: out of memory: the kernel stopped device 3 at its container's limit of 640 MiB"),
        (-9, 0, "killed: signal 9 ended the training process of device 3"),
        (75, 0, "timeout: device 3 passed its deadline, its training process was ended"),
        (1, 0, "killed: the training process of device 3 ended with exit code 1"),
    ],
)
def test_cause_of_death(monkeypatch, code, kills, expected):
    monkeypatch.setattr("deploy.worker.killed_by_kernel_count", lambda: kills)
    monkeypatch.setattr("deploy.worker.limit_bytes", lambda: 640 * 2**20)
    assert Trainer(3).cause_of_death(code, 0) == expected


@pytest.fixture
def message(monkeypatch) -> Message:
    for part in ("_run_id", "_node_id", "_task_id"):
        monkeypatch.setattr(TaskIdentity, part, 1)
    return Message(RecordDict({"x": ConfigRecord({"n": 1})}), dst_node_id=1, message_type="train")


def test_sender_waits_until_the_message_expires(message):
    assert 0 < seconds_left(message) <= message.metadata.ttl


class _Dying:
    """Stands for the training process: it dies when a message reaches it."""

    exitcode = -9

    def is_alive(self) -> bool:
        return True

    def join(self, timeout: float) -> None:
        pass


class _Closed:
    def send(self, _content: object) -> None:
        raise BrokenPipeError


def test_dead_training_process_is_answered_for_and_started_again(monkeypatch, message):
    trainer = Trainer(2, _Dying(), _Closed())
    started = []
    monkeypatch.setattr(Trainer, "start", lambda self: started.append(self.device))
    monkeypatch.setattr("deploy.worker.killed_by_kernel_count", lambda: 0)
    context = Context(1, 2, {}, RecordDict(), {})
    reply, kept = trainer.answer(None, None, message, context)
    assert reply.error.code == ErrorCode.CLIENT_APP_CRASHED
    assert reply.error.reason.startswith("killed: signal 9")
    assert kept is None
    assert started == [2]


@pytest.fixture
def runs(tmp_path, monkeypatch):
    monkeypatch.setattr(page.Handler, "root", tmp_path)
    server = ThreadingHTTPServer(("127.0.0.1", 0), page.Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield tmp_path, f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    thread.join()
    server.server_close()


def get(url: str) -> tuple[int, str, dict[str, str]]:
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:
            return answer.status, answer.read().decode(), dict(answer.headers)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode(), dict(error.headers)


def test_page_shows_how_a_run_stands_and_then_its_report(runs):
    folder, url = runs
    assert "No run yet" in get(f"{url}/")[1]
    config = load_config(FLEET)
    with RunStore.create(folder / config.name, config) as store:
        store.add_round(RoundRecord(round=0, asked=0, trained=0, loss=1.0, accuracy=0.5))
        store.add_round(RoundRecord(round=1, asked=4, trained=3, loss=0.5, accuracy=0.875))
        code, text, headers = get(f"{url}/")
    assert code == 200
    assert "round 1 of 5" in text
    assert "3 of 4" in text
    assert "87.5 %" in text
    assert headers["Content-Security-Policy"].startswith("default-src 'none'")
    (folder / config.name / "report.html").write_text("<p>the report</p>")
    assert get(f"{url}/{config.name}/")[1] == "<p>the report</p>"


@pytest.mark.parametrize("path", ["/../../etc/passwd", "/compose/run.sqlite", "/%2e%2e/secret", "/nothing"])
def test_page_serves_nothing_but_reports(runs, path):
    folder, url = runs
    (folder / "secret").write_text("secret")
    code, text, _ = get(url + path)
    assert code == 404
    assert "secret" not in text


def test_page_takes_only_get(runs):
    _, url = runs
    request = urllib.request.Request(f"{url}/", data=b"x", method="POST")
    with pytest.raises(urllib.error.HTTPError, match="501") as refused:
        urllib.request.urlopen(request, timeout=10)
    refused.value.close()


def test_runner_goes_on_reports_again_or_refuses(tmp_path, capsys):
    config = load_config(FLEET)
    folder = tmp_path / config.name
    assert runner.recorded(folder, config) is None
    with RunStore.create(folder, config):
        pass
    assert runner.recorded(folder, config) is None
    assert "going on with the unfinished run" in capsys.readouterr().out
    other = load_config(FLEET, ["seed=1"])
    with pytest.raises(RunError, match=r"other settings.*docker compose down --volumes"):
        runner.recorded(folder, other)
    with RunStore.open(folder) as store:
        store.set_status("finished")
    assert runner.recorded(folder, config) == 1  # finished, but no round happened


def test_wait_for_ends_by_itself():
    assert settings.wait_for(lambda: True, 0)
    assert not settings.wait_for(lambda: False, 0.01, interval=0.001)


def test_supervisor_starts_again_what_dies_and_stops_when_told(tmp_path, capsys):
    from deploy import device

    log = tmp_path / "starts"
    commands = {"worker": ["/bin/sh", "-c", f"echo start >> {log}; exit 3"]}
    handlers = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]

    def stop() -> None:
        settings.wait_for(lambda: log.exists() and log.read_text().count("start") >= 2, 20)
        os.kill(os.getpid(), signal.SIGTERM)

    thread = threading.Thread(target=stop)
    thread.start()
    try:
        assert device.supervise(5, commands) == 0
    finally:
        thread.join()
        for number, handler in zip((signal.SIGTERM, signal.SIGINT), handlers, strict=True):
            signal.signal(number, handler)
    assert "worker ended (exit code 3): starting it again" in capsys.readouterr().out
