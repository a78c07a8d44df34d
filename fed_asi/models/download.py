"""Files from their publishers: downloaded once, verified and kept. Without a network it gives up quickly."""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import socket
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

from fed_asi.errors import WeightsError
from fed_asi.waiting import heard, tell

PATIENCE_SECONDS = 6.0
_CHUNK = 1 << 20


def cache_dir() -> Path:
    """Return where downloads are kept: FED_ASI_CACHE_DIR, or fed_asi in the user's cache folder."""
    named = os.environ.get("FED_ASI_CACHE_DIR")
    if named:
        return Path(named)
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "fed_asi"


def reachable(url: str) -> bool:
    """Return, within PATIENCE_SECONDS, whether the host of `url` (or the proxy in between) answers."""
    parts = urlsplit(url)
    if parts.scheme == "file":
        return True
    through = urlsplit(urllib.request.getproxies().get(parts.scheme, url))
    address = (through.hostname or "", through.port or (80 if through.scheme == "http" else 443))
    answered = threading.Event()

    def knock() -> None:
        try:
            socket.create_connection(address, timeout=PATIENCE_SECONDS).close()
        except OSError:
            return
        answered.set()

    # Name resolution has no timeout of its own, so we wait for it from outside.
    knocking = threading.Thread(target=knock, daemon=True)
    knocking.start()
    knocking.join(PATIENCE_SECONDS)
    return answered.is_set()


@contextlib.contextmanager
def hub_or_cache() -> Iterator[None]:
    """Let Hugging Face's hub be asked within, or its cache alone where it does not answer: it would try a minute."""
    from huggingface_hub import constants

    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = before or not reachable(constants.ENDPOINT)
    try:
        with fetching("asking Hugging Face's hub, or its cache"):
            yield
    finally:
        constants.HF_HUB_OFFLINE = before


@contextlib.contextmanager
def fetching(text: str) -> Iterator[None]:
    """Report, while the block lasts, that another library downloads; its own bars are hidden if anyone listens."""
    tell(text, 0)
    try:
        with contextlib.redirect_stderr(io.StringIO()) if heard() else contextlib.nullcontext():
            yield
    finally:
        tell(text, 1, 1)


def fetch(url: str, sha256: str, folder: Path) -> Path:
    """Return the file at `url`, downloaded into `folder` unless it is there already.

    sha256: the checksum, or its first digits; "" if the publisher gives none. Then the checksum of the first download
    is kept beside the file, and a file that changes later is refused.
    Raises WeightsError where the file cannot be downloaded or is not the expected one.
    """
    path = folder / Path(urlsplit(url).path).name
    noted = path.with_name(f"{path.name}.sha256")
    if not path.is_file():
        _download(url, path)
    found = _sha256(path)
    expected = sha256 or (noted.read_text(encoding="ascii").strip() if noted.is_file() else "")
    if not found.startswith(expected):
        path.unlink()
        raise WeightsError(
            f"{url}: checksum {found[:16]}... is not the expected {expected[:16]}...; file removed"
        )
    noted.write_text(found, encoding="ascii")
    return path


def _download(url: str, path: Path) -> None:
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with urllib.request.urlopen(url, timeout=PATIENCE_SECONDS) as source, part.open("wb") as file:
            total, done = _mib(source.headers.get("Content-Length")), 0
            tell(f"downloading {path.name}, MiB", 0, total)
            while chunk := source.read(_CHUNK):
                file.write(chunk)
                done += len(chunk)
                tell(f"downloading {path.name}, MiB", done // _CHUNK, total)
            tell(f"downloading {path.name}, MiB", 1, 1)
        part.replace(path)
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", None) or error
        raise WeightsError(f"{url} cannot be downloaded: {reason}") from error
    finally:
        part.unlink(missing_ok=True)


def _mib(length: str | None) -> int | None:
    """Return a file's size as its publisher states it, rounded up to MiB; None if it is not stated."""
    return -(-int(length) // _CHUNK) if length and length.isdigit() else None


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
