"""Calls to the SuperLink: whether it is there. Its answers are tested in test_superlink.py."""

from __future__ import annotations

import socket

from deploy import control


def test_a_port_is_reachable_while_somebody_listens(monkeypatch):
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        monkeypatch.setattr(control, "PORT", listening.getsockname()[1])
        assert control.reachable("127.0.0.1")
    assert not control.reachable("127.0.0.1")


def test_a_host_without_a_name_is_not_reachable():
    assert not control.reachable("superlink.invalid")
