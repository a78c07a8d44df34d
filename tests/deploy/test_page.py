"""The page: how a run stands, its report, and nothing else."""

from __future__ import annotations

import threading
import urllib.error
import urllib.request
from http.server import ThreadingHTTPServer
from pathlib import Path

import pytest

from deploy import page
from fed_asi.fleets.file import load_config
from fed_asi.results.schema import RoundRecord
from fed_asi.results.store import RunStore

FLEET = Path(__file__).parents[2] / "experiments" / "fleets" / "compose.toml"


@pytest.fixture
def runs(tmp_path, monkeypatch):
    monkeypatch.setattr(page.Handler, "root", tmp_path)
    server = ThreadingHTTPServer(("127.0.0.1", 0), page.Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
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
