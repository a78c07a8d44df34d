"""The runner: it continues where records end, reports a finished run again, and exits with the run's own code."""

from __future__ import annotations

import warnings
from pathlib import Path
from types import SimpleNamespace

import pytest

from fed_asi.errors import RunError
from fed_asi.fleets.file import load_config
from fed_asi.results.schema import DeviceRoundRecord, RoundRecord
from fed_asi.results.store import RunStore

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # Flower's own imports warn
    from deploy import runner
    from deploy.flwr_private import Status

FLEET = Path(__file__).parents[2] / "experiments" / "fleets" / "compose.toml"


def finish(store: RunStore) -> None:
    """Record a run in which every round happened."""
    for number in range(1, store.config().rounds + 1):
        store.add_round(RoundRecord(number, 1, 1, 0.5, 0.9), [DeviceRoundRecord(number, 0, "trained")])
    store.set_status("finished")


def test_records_that_are_there_decide_what_is_left_to_do(tmp_path, capsys):
    config = load_config(FLEET)
    folder = tmp_path / config.name
    assert runner.recorded(folder, config) is None
    with RunStore.create(folder, config):
        pass
    assert runner.recorded(folder, config) is None
    assert "continuing the unfinished run" in capsys.readouterr().out
    other = load_config(FLEET, ["seed=1"])
    with pytest.raises(RunError, match=r"other settings.*docker compose down --volumes"):
        runner.recorded(folder, other)
    with RunStore.open(folder) as store:
        store.set_status("finished")
    assert runner.recorded(folder, config) == 1  # finished, but no round happened


class Client:
    """Stands for the Control API: two runs, and devices that come one by one."""

    def __init__(self) -> None:
        self.stopped: list[int] = []
        self.online = 0
        self.runs = {
            1: SimpleNamespace(run_id=1, pending_at="1", status=self.status(Status.FINISHED, "failed")),
            2: SimpleNamespace(run_id=2, pending_at="2", status=self.status(Status.RUNNING, "")),
        }

    @staticmethod
    def status(status: str, sub_status: str) -> SimpleNamespace:
        return SimpleNamespace(status=status, sub_status=sub_status)

    def ListRuns(self, _request):  # noqa: N802
        return SimpleNamespace(run_dict=self.runs)

    def StopRun(self, request):  # noqa: N802
        self.stopped.append(request.run_id)

    def ListNodes(self, _request):  # noqa: N802
        self.online += 1
        nodes = [SimpleNamespace(status="online")] * self.online
        return SimpleNamespace(nodes_info=[*nodes, SimpleNamespace(status="offline")])


@pytest.fixture
def client(monkeypatch, tmp_path) -> Client:
    monkeypatch.setattr(runner, "RUNS", tmp_path)
    monkeypatch.setattr(runner, "wait_for", lambda ready, *_times, **_named: any(ready() for _ in range(9)))
    monkeypatch.setattr(runner, "reachable", lambda _host: True)
    one = Client()
    monkeypatch.setattr(runner, "control_client", lambda _host, _certificate: one)
    return one


def test_it_waits_for_the_devices_and_stops_what_an_earlier_runner_left(client, capsys):
    assert runner.connect(4) is client
    assert client.stopped == [2]
    assert client.online == 4
    out = capsys.readouterr().out
    assert "stopping what an earlier runner left behind (run 2)" in out
    assert "[runner] devices that have come: 3 of 4\n[runner] devices that have come: 4 of 4\n" in out


def test_it_starts_with_the_devices_that_came(client, capsys):
    runner.connect(40)
    assert "of 40 devices came within 120 s: starting with them" in capsys.readouterr().out


def test_no_superlink_is_one_line(client, monkeypatch):
    monkeypatch.setattr(runner, "reachable", lambda _host: False)
    with pytest.raises(RunError, match="no SuperLink within 120 s: see docker compose logs superlink"):
        runner.connect(4)


@pytest.mark.parametrize("profile", ["", "insecure"])
def test_flower_is_told_what_to_run_and_its_word_comes_back(client, monkeypatch, tmp_path, profile):
    """`flwr` and `flower-superexec` are scripts that write down how they were called."""
    for name, code in (("flwr", 0), ("flower-superexec", 0)):
        (tmp_path / name).write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/{name}.called\nexit {code}\n')
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setenv("FLWR_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("FED_ASI_PROFILES", profile)
    client.runs[2].status = client.status(Status.FINISHED, "completed")
    assert runner.follow(client, "/fleet/compose.toml") == "finished:completed"
    told = (tmp_path / "flwr.called").read_text()
    assert 'fleet="/fleet/compose.toml" resume=true deployed=true' in told
    settings = (tmp_path / "home" / "config.toml").read_text()
    assert 'address = "superlink-operator:8443"' in settings
    assert ("insecure = true" in settings) is bool(profile)
    assert ('root-certificates = "/trust/ca.crt"' in settings) is not bool(profile)


@pytest.fixture
def whole(tmp_path, monkeypatch, no_pictures) -> Path:
    """A runner whose Flower does the whole run; the folder of runs."""

    def follow(_client, fleet: str) -> str:
        config = load_config(fleet)
        with RunStore.create(tmp_path / config.name, config) as store:
            finish(store)
        return "finished:completed"

    monkeypatch.setattr(runner, "RUNS", tmp_path)
    monkeypatch.setattr(runner, "connect", lambda devices: devices)
    monkeypatch.setattr(runner, "follow", follow)
    monkeypatch.setattr("sys.argv", ["runner", "--fleet", str(FLEET)])
    return tmp_path


def test_a_whole_run_exits_0_with_its_table_and_its_page(whole, capsys):
    assert runner.main() == 0
    out = capsys.readouterr().out
    assert "Flower says finished:completed" in out
    assert "compose: what each budget bought" in out
    assert (whole / "compose" / "report.html").exists()


def test_a_finished_run_is_shown_again_and_not_done_again(whole, monkeypatch, capsys):
    assert runner.main() == 0
    monkeypatch.setattr(runner, "follow", None)
    assert runner.main() == 0
    assert "is there already, its table follows" in capsys.readouterr().out


def test_flowers_word_is_not_the_exit_code(whole, monkeypatch, capsys):
    def follow(_client, fleet: str) -> str:
        config = load_config(fleet)
        with RunStore.create(whole / config.name, config) as store:
            store.set_status("finished")
        return "finished:completed"

    monkeypatch.setattr(runner, "follow", follow)
    assert runner.main() == 1


def test_a_run_without_records_is_one_line_and_exit_2(whole, monkeypatch, capsys):
    monkeypatch.setattr(runner, "follow", lambda _client, _fleet: "finished:failed")
    assert runner.main() == 2
    assert "[runner] error: the run failed before its first record" in capsys.readouterr().err
