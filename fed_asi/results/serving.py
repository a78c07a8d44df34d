"""Pages of runs over HTTP, each rendered on request from its records, and renewed while the run goes on.

Only GET, and only / (the newest run), /NAME/ and /healthz. Used by `fed-asi watch` and by the page of the containers.
Requests for a domain name are refused: a page from elsewhere may have made such a name point to this machine.
"""

from __future__ import annotations

import contextlib
import ipaddress
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

from fed_asi.errors import FedAsiError
from fed_asi.results import figures, now
from fed_asi.results.html_page import document, escape
from fed_asi.results.lock import is_locked
from fed_asi.results.page import RENEW_SECONDS, render
from fed_asi.results.schema import FILE_NAME
from fed_asi.results.store import RunStore
from fed_asi.results.summary import summarise
from fed_asi.texts import resume_line

HEADERS = {
    "Content-Type": "text/html; charset=utf-8",
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "default-src 'none'; img-src data:; style-src 'unsafe-inline'",
}
ELSEWHERE = "Open this page by this machine's address or as localhost, not by another name."
STARTING = "No run yet: it is starting. This page renews itself."
Stamp = tuple[object, ...]


class Pages:
    """The pages of one run, or of all runs in a folder. how_on: the line that goes on with a run that stopped."""

    def __init__(
        self,
        home: Path,
        how_on: Callable[[Path], str] = resume_line,
        starting: Callable[[], str] = lambda: STARTING,
    ) -> None:
        self._home, self._how_on, self._starting = home, how_on, starting
        self._made: dict[Path, tuple[Stamp, str]] = {}
        self._one_at_a_time = threading.Lock()  # matplotlib draws for one thread

    def runs(self) -> list[Path]:
        """Return the runs there are, the newest first."""
        found = [
            path.parent
            for path in (self._home / FILE_NAME, *self._home.glob(f"*/{FILE_NAME}"))
            if path.is_file()
        ]
        return sorted(found, key=lambda run: (run / FILE_NAME).stat().st_mtime, reverse=True)

    def expected(self) -> bool:
        """Return whether there is a run, or one is prepared: its folder, at first empty, comes before its records."""
        if self.runs() or any(
            (folder / now.FILE_NAME).is_file() for folder in (self._home, *self._home.glob("*"))
        ):
            return True
        return self._home.is_dir() and not any(self._home.iterdir())

    def answer(self, path: str) -> tuple[int, str]:
        """Return the status and the page of a path; a run whose records cannot be read is 503 and says why."""
        name = unquote(path.split("?", maxsplit=1)[0]).strip("/")
        try:
            found = self.runs()
            if name == "healthz":
                return 200, "ok"
            if not name:
                return 200, self.page(found[0]) if found else _plain("fed_asi", self._starting(), renew=True)
            chosen = [run for run in found if run.resolve().name == name]
            return (200, self.page(chosen[0])) if chosen else (404, _plain("not found", "No such run."))
        except (FedAsiError, OSError) as error:
            return 503, _plain("not readable", str(error), renew=True)

    def page(self, run: Path) -> str:
        """Return a run's page, rendered again only if something in it may have changed."""
        with self._one_at_a_time:
            stamp = _stamp(run)
            if run not in self._made or self._made[run][0] != stamp:
                self._made[run] = stamp, self._render(run)
            return self._made[run][1]

    def _render(self, run: Path) -> str:
        with RunStore.read(run) as store:
            summary = summarise(store, self._how_on)
        drawn = [figures.draw([summary], bitmaps=False)] if summary.rounds else [{}]
        return render([summary], drawn, now=now.read_now(run), served=True)


def _stamp(run: Path) -> Stamp:
    """Return a value that changes whenever a run's page may: times and sizes of its files, and whether it goes on."""
    known: list[object] = [is_locked(run)]
    for name in (FILE_NAME, f"{FILE_NAME}-wal", now.FILE_NAME):
        path = run / name
        size = path.stat().st_size if path.is_file() else 0
        known.append((path.stat().st_mtime_ns, size) if size else None)  # readers leave empty ones behind
    return tuple(known)


def _plain(title: str, text: str, *, renew: bool = False) -> str:
    body = [f"<h1>{escape(title)}</h1><section><p>{escape(text)}</p></section>"]
    return document(title, body, "", renew_seconds=RENEW_SECONDS if renew else None)


def _is_here(host: str | None) -> bool:
    """Return whether a request names this machine by address or as localhost, or by nothing, as old clients do."""
    if not host:
        return True
    try:
        name = urlsplit(f"//{host}").hostname or ""
        return name == "localhost" or bool(ipaddress.ip_address(name))
    except ValueError:
        return False


def server(pages: Pages, host: str, port: int) -> ThreadingHTTPServer:
    """Return a server of these pages that is already listening; port 0: any free one. Raises OSError if it is taken."""

    class Handler(BaseHTTPRequestHandler):
        server_version = "fed_asi"
        sys_version = ""

        def handle(self) -> None:
            with contextlib.suppress(ConnectionError):  # a reader who has left is not an error
                super().handle()

        def do_GET(self) -> None:
            here = _is_here(self.headers.get("Host"))
            code, text = pages.answer(self.path) if here else (421, _plain("not here", ELSEWHERE))
            body = text.encode()
            self.send_response(code)
            for key, value in HEADERS.items():
                self.send_header(key, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Keep the log to what matters."""

    return ThreadingHTTPServer((host, port), Handler)
