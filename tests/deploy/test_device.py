"""A device's container: its identity, its enrolment, and that whatever dies in it is restarted."""

from __future__ import annotations

import os
import signal
import threading

import pytest

from deploy import device, settings
from deploy.keys import make_node_key


def test_supernode_speaks_plainly_only_under_the_profile(monkeypatch):
    config = "partition-id=7 num-partitions=8 budget=65536"
    assert device.partition_of(config) == 7
    monkeypatch.delenv("FED_ASI_PROFILES", raising=False)
    assert "--insecure" not in device.supernode_command(config)
    assert "--auth-supernode-private-key" in device.supernode_command(config)
    monkeypatch.setenv("FED_ASI_PROFILES", "insecure")
    assert "--insecure" in device.supernode_command(config)


@pytest.fixture
def volumes(tmp_path, monkeypatch):
    for name in ("OWN", "ENROL", "TRUST"):
        (tmp_path / name).mkdir()
        monkeypatch.setattr(device, name, tmp_path / name)
    return tmp_path


def test_a_device_is_enrolled_when_the_authority_shows_its_own_key(volumes, capsys):
    public_key, _ = make_node_key(volumes / "OWN")
    (volumes / "TRUST" / "3.enrolled").write_bytes(public_key)
    assert device.enrol(3)
    assert (volumes / "ENROL" / "3.pub").read_bytes() == public_key
    assert capsys.readouterr().out == ""  # a key that is there already is not made


def test_a_device_whose_place_another_key_has_is_not_enrolled(volumes, monkeypatch, capsys):
    monkeypatch.setattr(device, "_PATIENCE_S", 0.01)
    (volumes / "TRUST" / "3.enrolled").write_bytes(b"another's")
    assert not device.enrol(3)
    assert "made its node key" in capsys.readouterr().out


def test_a_device_that_is_not_enrolled_ends_with_one_line(volumes, monkeypatch, capsys):
    monkeypatch.setattr(device, "_PATIENCE_S", 0.01)
    monkeypatch.delenv("FED_ASI_PROFILES", raising=False)
    monkeypatch.setattr("sys.argv", ["device", "--node-config", "partition-id=3 num-partitions=4"])
    assert device.main() == 2
    said = capsys.readouterr().err
    assert said.startswith("[device 3] error: the SuperLink did not enrol it")
    assert len(said.splitlines()) == 1


def test_supervisor_starts_again_what_dies_and_stops_when_told(tmp_path, capsys):
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
