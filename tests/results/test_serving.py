"""Pages over HTTP: they show the current records, follow a run that goes on, and serve no other file."""

from __future__ import annotations

import os
import socket
import struct
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from fed_asi.fleets.config import GroupConfig, RunConfig
from fed_asi.results import figures, now
from fed_asi.results.figures import Picture
from fed_asi.results.schema import FILE_NAME, RoundRecord
from fed_asi.results.serving import Pages, server
from fed_asi.results.store import RunStore
from made_run import make

CONFIG = RunConfig(name="made", cohort=1, rounds=3, groups=(GroupConfig(name="a", count=1, budget=None),))


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many rounds there were each time that figures were drawn; pictures themselves are not made."""
    times: list[int] = []

    def draw(summaries, *, bitmaps=True):
        assert not bitmaps
        times.append(len(summaries[0].rounds))
        return {"Accuracy over rounds": Picture(b"svg")}

    monkeypatch.setattr(figures, "draw", draw)
    return times


def get(url: str | urllib.request.Request) -> tuple[int, str, dict[str, str]]:
    try:
        with urllib.request.urlopen(url, timeout=30) as answer:
            return answer.status, answer.read().decode(), dict(answer.headers)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode(), dict(error.headers)


@pytest.fixture
def served(tmp_path: Path, drawn: list[int]) -> Iterator[tuple[Path, str]]:
    serving = server(Pages(tmp_path), "127.0.0.1", 0)
    thread = threading.Thread(target=serving.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield tmp_path, f"http://127.0.0.1:{serving.server_address[1]}"
    serving.shutdown()
    thread.join()
    serving.server_close()


def test_a_page_goes_from_nothing_to_a_running_run_to_its_report(served, drawn):
    home, url = served
    assert "No run yet" in get(f"{url}/")[1]
    with RunStore.create(home / "made", CONFIG) as store:
        code, text, headers = get(f"{url}/")
        assert code == 200
        assert "It is being prepared" in text
        (home / "made" / now.FILE_NAME).write_text(
            '{"version": 1, "stage": "features", "done": 3, "total": 9}'
        )
        assert "features: 3 of 9" in get(f"{url}/")[1]
        store.add_round(RoundRecord(0, 0, 0, 1.0, 0.5))
        store.add_round(RoundRecord(1, 1, 1, 0.5, 0.875))
        text = get(f"{url}/")[1]
        assert "It is running: 1 of 3 rounds are done" in text
        assert "50.0 % → 87.5 %" in text
        assert 'http-equiv="refresh"' in text
        assert get(f"{url}/made/")[1] == text
        store.set_status("finished")
    text = get(f"{url}/made/")[1]
    assert "In part: 1 of 3 rounds" in text or "No: no device ever trained" in text
    assert "http-equiv" not in text
    assert headers["Content-Security-Policy"].startswith("default-src 'none'")
    assert drawn == [2, 2]


def test_a_page_is_made_again_only_where_something_changed(tmp_path, drawn):
    run = make(tmp_path / "made")
    os.utime(run / FILE_NAME, ns=(0, 0))  # a quick machine's next write may be in the same tick of its clock
    pages = Pages(run)
    assert pages.runs() == [run]
    first = pages.answer("/")
    assert pages.answer("/?x=1") == first
    assert drawn == [5]
    with RunStore.open(run) as store:
        store.note("another <i>")
    assert "another &lt;i&gt;" in pages.answer("/")[1]
    assert drawn == [5, 5]


def test_of_several_runs_each_has_its_page_by_its_name(tmp_path, drawn):
    make(tmp_path / "a")
    make(tmp_path / "b").rename(tmp_path / "b <i>")
    pages = Pages(tmp_path)
    assert "<h1>a</h1>" in pages.answer("/a/")[1]
    assert "<h1>b &lt;i&gt;</h1>" in pages.answer("/b%20%3Ci%3E/")[1]


def test_how_to_go_on_is_said_as_it_is_done_there(tmp_path, drawn):
    run = make(tmp_path / "made", finish=False)
    assert "go on with: fed-asi run --resume" in Pages(run).answer("/")[1]
    assert "go on with: docker compose" in Pages(run, lambda _folder: "docker compose start").answer("/")[1]


@pytest.mark.parametrize(
    "path", ["/../../etc/passwd", "/made/run.sqlite", "/%2e%2e/secret", "/nothing", "/secret"]
)
def test_nothing_but_runs_is_served(tmp_path, drawn, path):
    make(tmp_path / "made")
    (tmp_path / "secret").write_text("a secret")
    code, text = Pages(tmp_path).answer(path)
    assert code == 404
    assert "a secret" not in text


def test_records_that_cannot_be_read_are_one_line(tmp_path, drawn):
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / FILE_NAME).write_text(
        "<i> no database, and long enough to be looked at as one, so that it is read"
    )
    code, text = Pages(tmp_path).answer("/")
    assert code == 503
    assert "file is not a database" in text
    assert "Traceback" not in text


def test_only_get_is_answered(served):
    _, url = served
    assert get(f"{url}/healthz")[:2] == (200, "ok")
    request = urllib.request.Request(f"{url}/", data=b"x", method="POST")
    with pytest.raises(urllib.error.HTTPError, match="501") as refused:
        urllib.request.urlopen(request, timeout=30)
    refused.value.close()


def test_who_asks_by_the_name_of_a_domain_is_refused(served):
    home, url = served
    make(home / "secret")
    for host in ("localhost:8088", "127.0.0.1:8088", "[::1]:8088", ""):
        code, text, _ = get(urllib.request.Request(f"{url}/", headers={"Host": host}))
        assert (code, "<h1>secret</h1>" in text) == (200, True), host
    for host in ("rebound.example", "127.0.0.1.example:8088", "[127.0.0.1"):
        code, text, _ = get(urllib.request.Request(f"{url}/", headers={"Host": host}))
        assert (code, "secret" in text) == (421, False), host


def test_a_reader_who_has_gone_is_no_traceback(tmp_path, monkeypatch):
    serving = server(Pages(tmp_path), "127.0.0.1", 0)
    wrong = []
    monkeypatch.setattr(serving, "handle_error", lambda _request, _client: wrong.append(sys.exception()))
    asking = socket.create_connection(("127.0.0.1", serving.server_address[1]))
    request, client = serving.get_request()
    asking.sendall(b"GET / HTTP/1.0\r\n\r\n")
    asking.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # close by a reset
    asking.close()
    serving.process_request_thread(request, client)
    serving.server_close()
    assert wrong == []
