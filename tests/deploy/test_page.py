"""The page's container: the pages of all runs in its volume, in words for containers."""

from __future__ import annotations

from http.server import ThreadingHTTPServer

import pytest

from deploy import page
from fed_asi.results import figures
from fed_asi.results.now import Now, write_now
from made_run import make


@pytest.fixture
def pages(tmp_path, monkeypatch):
    """What the container would serve, and to whom."""
    served = []
    monkeypatch.setattr(page, "RUNS", tmp_path)
    monkeypatch.setattr(figures, "draw", lambda _summaries, **_how: {})
    monkeypatch.setattr("sys.argv", ["page", "--port", "0"])
    monkeypatch.setattr(ThreadingHTTPServer, "serve_forever", lambda self: served.append(self.server_address))
    real = page.server

    def kept(pages, host, port):
        served.append(pages)
        return real(pages, host, port)

    monkeypatch.setattr(page, "server", kept)
    assert page.main() == 0
    return served


def test_it_says_where_it_is_published(pages, capsys, monkeypatch):
    assert pages[1][0] == "0.0.0.0"
    monkeypatch.delenv("FED_ASI_PORT", raising=False)
    page.main()
    assert "http://localhost:8080, on this machine only" in capsys.readouterr().out
    monkeypatch.setenv("FED_ASI_PORT", "8081")
    page.main()
    assert "http://localhost:8081," in capsys.readouterr().out


def test_before_the_first_run_it_says_what_happens(pages, tmp_path):
    code, text = pages[0].answer("/")
    assert code == 200
    assert "The fleet is starting" in text
    write_now(tmp_path, Now("devices that have come", 2, 4))
    assert "Now: devices that have come: 2 of 4." in pages[0].answer("/")[1]
    assert "http-equiv" in text


def test_a_runner_that_was_stopped_is_started_again_as_containers_are(pages, tmp_path):
    make(tmp_path / "compose", finish=False)
    text = pages[0].answer("/compose/")[1]
    assert "Not yet: it stopped after 4 of 4 rounds" in text
    assert "go on with: docker compose start runner" in text
