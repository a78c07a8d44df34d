"""The page's container: serves the newest run's report, and while a run goes on how it stands.

`python -m deploy.page --port 8080`; GET only, nothing but /, /NAME/ and /healthz.
"""

from __future__ import annotations

import argparse
import html
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from deploy.settings import RUNS, say
from fed_asi.errors import FedAsiError
from fed_asi.results.schema import FILE_NAME
from fed_asi.results.store import RunStore

_HEADERS = {
    "Content-Type": "text/html; charset=utf-8",
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "default-src 'none'; img-src data:; style-src 'unsafe-inline'",
}
_STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#1b1f24}"
    "table{border-collapse:collapse}"
    "td,th{padding:.3rem .9rem;border-bottom:1px solid #d0d7de;text-align:right}"
    "td:first-child,th:first-child{text-align:left}.note{color:#57606a}"
)


def runs(folder: Path) -> list[Path]:
    """Return the runs in `folder`, newest first."""
    found = [path.parent for path in folder.glob(f"*/{FILE_NAME}")]
    return sorted(found, key=lambda run: (run / FILE_NAME).stat().st_mtime, reverse=True)


def page_of(run: Path) -> str:
    """Return a run's report, or, while there is none, how the run stands."""
    report = run / "report.html"
    return report.read_text(encoding="utf-8") if report.exists() else status(run)


def status(run: Path) -> str:
    """Return a page that renews itself: rounds so far, devices trained, accuracy."""
    with RunStore.read(run) as store:
        config, rounds, state = store.config(), store.rounds(), store.run().status
    rows = [
        f"<tr><td>{one.round}</td><td>{one.trained} of {one.asked}</td><td>{_percent(one.accuracy)}</td></tr>"
        for one in rounds
    ]
    done = max((one.round for one in rounds), default=0)
    head = "<tr><th>round</th><th>devices trained</th><th>accuracy</th></tr>"
    text = f"<p>{html.escape(state)}: round {done} of {config.rounds}</p><table>{head}{''.join(rows)}</table>"
    return _document(f"run {config.name}", text, renew=True)


def empty() -> str:
    """Return the page shown before any run has begun."""
    return _document("fed_asi", "<p>No run yet: the fleet is starting.</p>", renew=True)


def _percent(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.1f} %"


def _document(title: str, body: str, *, renew: bool) -> str:
    refresh = '<meta http-equiv="refresh" content="3">' if renew else ""
    title = html.escape(title)
    note = '<p class="note">This page renews itself; the report takes its place when the run ends.</p>'
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8">{refresh}<title>{title}</title>'
        f"<style>{_STYLE}</style></head><body><h1>{title}</h1>{body}{note}</body></html>"
    )


class Handler(BaseHTTPRequestHandler):
    """Answers GET with a page; every other method and path is an error."""

    root = RUNS
    server_version = "fed_asi"
    sys_version = ""

    def do_GET(self) -> None:
        """Answer one request."""
        name = self.path.split("?")[0].strip("/")
        try:
            found = runs(self.root)
            if name == "healthz":
                self._answer(200, "ok")
            elif not name:
                self._answer(200, page_of(found[0]) if found else empty())
            elif chosen := [run for run in found if run.name == name]:
                self._answer(200, page_of(chosen[0]))
            else:
                self._answer(404, _document("not found", "<p>No such run.</p>", renew=False))
        except (FedAsiError, OSError) as error:
            self._answer(503, _document("not readable", f"<p>{html.escape(str(error))}</p>", renew=True))

    def log_message(self, format: str, *args: object) -> None:
        """Keep the log to what matters."""

    def _answer(self, code: int, text: str) -> None:
        body = text.encode()
        self.send_response(code)
        for key, value in _HEADERS.items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def main() -> int:
    """Serve until stopped."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, default=8080)
    port = parser.parse_args().port
    server = ThreadingHTTPServer(("0.0.0.0", port), Handler)
    say("page", f"the report is at http://localhost:{port}, on this machine only")
    server.serve_forever()
    return 0


if __name__ == "__main__":
    sys.exit(main())
