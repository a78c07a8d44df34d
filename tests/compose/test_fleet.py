"""docker compose up, for real: a fleet within its limits, and faults in it.

Run with: make compose-test
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

import pytest

import browser
from fed_asi.fleets.file import load_config
from fed_asi.results.store import RunStore
from fed_asi.rounds.run import run_loop
from tests.compose.conftest import ROUNDS
from tests.compose.stack import BOARDS, ROOT, Stack, docker, outcomes

pytestmark = [pytest.mark.compose, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def finished(image, tmp_path_factory) -> Iterator[tuple[Stack, str, int]]:
    """A fleet that ran to its end within its limits: its stack, what it printed, its exit code."""
    with Stack(tmp_path_factory.mktemp("within"), ROUNDS) as stack:
        done = stack.up_to_the_end()
        yield stack, done.stdout, done.returncode


class TestWithinItsLimits:
    def test_it_ends_by_itself_with_the_table_and_exit_code_0(self, finished):
        _, printed, code = finished
        assert code == 0, printed[-3000:]
        assert "compose: what each budget bought" in printed
        for group in ("tight", "medium", "roomy"):
            assert re.search(rf"\| {group}  +\d", printed)

    def test_every_device_trained_within_its_budget(self, finished, tmp_path):
        stack, _, _ = finished
        with stack.records(tmp_path / "run") as store:
            assert store.exit_code() == 0
            rows = outcomes(store)
        assert sorted(rows) == [0, 1, 2, 3]
        for device, records in rows.items():
            assert [record.outcome for record in records] == ["trained"] * ROUNDS, device
            for record in records:
                assert record.measured_bytes
                assert record.budget_bytes is None or record.measured_bytes <= record.budget_bytes
        assert [rows[device][0].budget_bytes for device in range(4)] == [65536, 65536, 262144, None]

    def test_weights_equal_the_simulation_to_the_bit(self, finished, simulated, tmp_path):
        stack, _, _ = finished
        with stack.records(tmp_path / "run") as store:
            assert store.rounds()[-1].weights_sha256 == simulated[ROUNDS]

    def test_containers_are_hardened_as_the_engine_sees_them(self, finished):
        stack, _, _ = finished
        names = docker(
            "ps", "--all", "--quiet", "--filter", f"label=com.docker.compose.project={stack.project}"
        )
        containers = json.loads(docker("inspect", *names.stdout.split()).stdout)
        assert len(containers) == 7
        for one in containers:
            host, name = one["HostConfig"], one["Name"]
            assert host["ReadonlyRootfs"], name
            assert host["CapDrop"] == ["ALL"], name
            assert host["SecurityOpt"] == ["no-new-privileges:true"], name
            assert host["Memory"] > 0, name
            assert not host["Privileged"], name
            assert one["Config"]["User"] == "app", name
            for bound in (host["PortBindings"] or {}).values():
                assert [port["HostIp"] for port in bound] == ["127.0.0.1"], name
            assert bool(host["PortBindings"]) == ("-page-" in name)

    def test_no_key_is_in_the_image(self, image):
        found = docker(
            "run", "--rm", image, "find", "/own", "/trust", "/enrol", "/runs", "/app", "-type", "f"
        )
        files = found.stdout.split()
        assert any(path.endswith("deploy/keys.py") for path in files)
        assert not [
            path for path in files if path.endswith((".key", ".pem", ".crt", ".pub", "/node", ".sqlite"))
        ]

    def test_page_shows_the_report_in_a_browser(self, finished, tmp_path):
        stack, _, _ = finished
        browser.chromium()
        stack.compose("up", "--detach", "page")
        url = stack.wait_for_page()
        picture = tmp_path / "page.png"
        page = browser.run(tmp_path, "--dump-dom", url)
        browser.run(tmp_path, "--window-size=1200,1600", f"--screenshot={picture}", url)
        for word in ("compose", "tight", "medium", "roomy"):
            assert word in page
        assert "is starting" not in page
        assert picture.stat().st_size > 20_000

    def test_started_again_it_shows_the_same_table(self, finished):
        stack, _, _ = finished
        done = stack.up_to_the_end()
        assert done.returncode == 0
        assert "is there already, its table follows" in done.stdout
        assert "what each budget bought" in done.stdout

    def test_stale_volume_of_another_run_is_one_line(self, finished):
        stack, _, _ = finished
        try:
            stack.write(ROUNDS, seed=1)
            done = stack.up_to_the_end()
        finally:
            stack.write(ROUNDS, seed=0)
        assert done.returncode == 2
        assert "holds a run 'compose' of other settings" in done.stdout + done.stderr
        assert "docker compose down --volumes" in done.stdout + done.stderr
        assert "Traceback" not in done.stdout + done.stderr


def test_broken_promise_and_unknown_nodes(image, tmp_path):
    """One device takes hundreds of MiB more than it may; meanwhile strangers knock at the SuperLink."""
    with Stack(tmp_path, ROUNDS) as stack:
        stack.environment["FED_ASI_BALLAST_1"] = "400"
        stack.compose("up", "--detach")
        stack.wait_for_log("superlink", "all 4 devices are enrolled")

        make_key = (
            "from pathlib import Path; from deploy.keys import make_node_key; make_node_key(Path('/tmp'))"
        )
        join = (
            f'python -c "{make_key}" && flower-supernode --superlink superlink:8443 --root-certificates '
            "/trust/ca.crt --auth-supernode-private-key /tmp/node --max-retries 1 --node-config partition-id=1"
        )
        stranger = stack.in_network("devices", "sh", "-c", join, mounts=("trust:/trust:ro",))
        assert "305" in stranger or "401" in stranger or "not registered" in stranger.lower(), stranger
        assert "SuperNode ID" not in stranger

        keyless = (
            "flower-supernode --superlink superlink:8443 --root-certificates /trust/ca.crt --max-retries 1 "
            "--node-config partition-id=1"
        )
        assert "SuperNode ID" not in stack.in_network(
            "devices", "sh", "-c", keyless, mounts=("trust:/trust:ro",)
        )

        call = (
            "import ssl, urllib.request, urllib.error\n"
            "tls = ssl.create_default_context(cafile='/trust/ca.crt')\n"
            "for path in ('control/list-runs', 'control/register-node', 'runtime/acquire-task'):\n"
            "    try: urllib.request.urlopen('https://superlink:8443/v1/' + path, b'', context=tls, timeout=10)\n"
            "    except urllib.error.HTTPError as error: print(path, error.code)\n"
        )
        answers = stack.in_network("devices", "python", "-c", call, mounts=("trust:/trust:ro",))
        assert answers.count(" 403") == 3, answers

        assert stack.wait_for_runner() == 0, stack.log("runner")[-3000:]
        with stack.records(tmp_path / "run") as store:
            rows = outcomes(store)
        assert {record.outcome for record in rows[1]} == {"killed"}
        assert all(
            str(record.cause).startswith("killed: out of memory: the kernel stopped device 1")
            for record in rows[1]
        )
        for device in (0, 2, 3):
            assert [record.outcome for record in rows[device]] == ["trained"] * ROUNDS
        assert len(rows) == 4


def test_device_stopped_half_way_and_started_again(image, tmp_path):
    rounds = 12
    with Stack(tmp_path, rounds) as stack:
        stack.compose("up", "--detach")
        stack.wait_for_log("runner", f"round 2/{rounds}")
        stack.compose("stop", "--timeout", "5", "device-2")
        stack.wait_for_log("runner", f"round 4/{rounds}")
        stack.compose("start", "device-2")
        assert stack.wait_for_runner() == 0, stack.log("runner")[-3000:]
        with stack.records(tmp_path / "run") as store:
            assert not store.missing()
            rows = outcomes(store)
    away = [record for record in rows[2] if record.outcome != "trained"]
    assert away
    assert {(record.outcome, record.cause) for record in away} == {
        ("failed", "device unreachable (stopped, or no heartbeat)")
    }
    assert rows[2][0].outcome == rows[2][-1].outcome == "trained"
    for device in (0, 1, 3):
        assert [record.outcome for record in rows[device]] == ["trained"] * rounds


def test_runner_killed_goes_on_to_the_same_weights(image, simulated, tmp_path):
    rounds = 2 * ROUNDS
    with Stack(tmp_path, rounds) as stack:
        stack.compose("up", "--detach")
        stack.wait_for_log("runner", f"round 2/{rounds}")
        docker("kill", f"{stack.project}-runner-1")
        assert stack.wait_for_runner() == 137
        stack.compose("start", "runner")
        assert stack.wait_for_runner() == 0, stack.log("runner")[-3000:]
        assert "continuing the unfinished run" in stack.log("runner")
        with stack.records(tmp_path / "run") as store:
            assert store.exit_code() == 0
            assert [record.round for record in store.rounds()] == list(range(rounds + 1))
            assert store.rounds()[-1].weights_sha256 == simulated[rounds]


def test_insecure_only_by_profile_and_it_says_so(image, tmp_path):
    with Stack(tmp_path, 1) as stack:
        stack.environment["COMPOSE_PROFILES"] = "insecure"
        done = stack.up_to_the_end()
        assert done.returncode == 0, done.stdout[-3000:]
        for service in ("superlink", "runner", "device-3"):
            assert "WARNING: profile 'insecure': no TLS and no node authentication" in stack.log(service)


def test_boards_are_held_to_their_ram_and_flash_as_in_the_simulation(image, tmp_path):
    with Stack(tmp_path, 1, text=BOARDS) as stack:
        done = stack.up_to_the_end()
        assert done.returncode == 0, done.stdout[-3000:]
        with stack.records(tmp_path / "run") as store:
            held, (last,) = list(store.device_rounds()), store.rounds()[-1:]
    run_loop(load_config(stack.fleet), tmp_path / "simulated")
    with RunStore.read(tmp_path / "simulated") as store:
        simulated, (expected,) = list(store.device_rounds()), store.rounds()[-1:]
    assert last.weights_sha256 == expected.weights_sha256
    known = ("outcome", "cause", "ram_bytes", "flash_bytes", "planned_bytes", "measured_bytes", "ranks")
    for one, other in zip(held, simulated, strict=True):
        assert {name: getattr(one, name) for name in known} == {name: getattr(other, name) for name in known}
    board, small = held
    assert board.outcome == "trained"
    assert 0 < board.ram_bytes <= 320 * 1024
    assert 0 < board.flash_bytes <= 1024 * 1024
    assert small.outcome == "excluded"


def test_committed_file_is_accepted(image):
    docker("compose", "--file", str(ROOT / "docker-compose.yml"), "config", "--quiet")
