"""`fed-asi watch`: the address of the page, and what is refused."""

from __future__ import annotations

import io
import json
import signal
import socket
import sys
from http.server import ThreadingHTTPServer

import pytest

from fed_asi.commands.main import main
from made_run import make


@pytest.fixture(autouse=True)
def handlers():
    """Signals as they were."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def stopped(monkeypatch):
    """A server that is stopped by Ctrl-C as soon as it serves."""

    def interrupted(_self):
        raise KeyboardInterrupt

    monkeypatch.setattr(ThreadingHTTPServer, "serve_forever", interrupted)


def test_it_says_where_the_page_is_and_the_run_goes_on_without_it(tmp_path, stopped, capsys):
    run = make(tmp_path / "made")
    for given in (run, run / "run.sqlite"):
        assert main(["watch", str(given), "--port", "0"]) == 0
        printed = capsys.readouterr()
        assert printed.out.startswith(f"{run} is at http://127.0.0.1:")
        assert printed.err == "stopped watching; the run goes on\n"


@pytest.mark.parametrize("how", [[], ["--json"]])
def test_whoever_reads_a_pipe_knows_where_while_it_serves(tmp_path, capsys, monkeypatch, how):
    pipe, said = io.BytesIO(), []

    def serving(_self):
        said.append(pipe.getvalue().decode())
        raise KeyboardInterrupt

    monkeypatch.setattr(ThreadingHTTPServer, "serve_forever", serving)
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(pipe))  # keeps what it gets until it is flushed
    assert main(["watch", str(tmp_path), "--port", "0", *how]) == 0
    address = json.loads(said[0])["address"] if how else said[0].split(" is at ")[1]
    assert address.startswith("http://127.0.0.1:")


def test_without_a_run_it_watches_the_folder_of_runs(tmp_path, stopped, capsys, monkeypatch):
    monkeypatch.setenv("FED_ASI_RUNS_DIR", str(tmp_path / "mine"))
    assert main(["watch", "--port", "0", "--wait"]) == 0
    assert str(tmp_path / "mine") in capsys.readouterr().out


def test_a_folder_without_a_run_is_said_at_once(tmp_path, stopped, capsys):
    make(tmp_path / "demo")
    assert main(["watch", str(tmp_path / "demmo"), "--port", "0"]) == 2
    said = capsys.readouterr().err
    assert f"no run in {tmp_path / 'demmo'}: name one that is there ({tmp_path / 'demo'})" in said
    assert "--wait" in said
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes.txt").touch()
    assert main(["watch", str(tmp_path / "other"), "--port", "0"]) == 2
    assert main(["watch", str(tmp_path / "none" / "demo"), "--port", "0"]) == 2
    assert "start one with fed-asi run FLEET.toml" in capsys.readouterr().err


def test_a_run_that_is_being_prepared_is_waited_for(tmp_path, stopped):
    begun = tmp_path / "begun"
    begun.mkdir()  # as a run makes it
    assert main(["watch", str(begun), "--port", "0"]) == 0
    (begun / "now.json").touch()
    (begun / "profile.json").touch()
    assert main(["watch", str(begun), "--port", "0"]) == 0


def test_a_port_that_cannot_be_had_is_one_line(tmp_path, capsys):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        assert main(["watch", str(tmp_path), "--port", str(port)]) == 2
    said = capsys.readouterr().err
    assert f"port {port} is not available" in said
    assert "--port 0" in said
    assert main(["watch", str(tmp_path), "--port", "70000"]) == 2
    assert "--port 70000: must be a number" in capsys.readouterr().err
