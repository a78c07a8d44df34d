"""Versioned JSON files, and one error for everything that can be wrong with them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from fed_asi.errors import FedAsiError, ProfileError


class describing:  # noqa: N801 - used as a statement, as contextlib's are
    """Turn the errors of reading a damaged structure into one ProfileError that names the source."""

    def __init__(self, source: str) -> None:
        self._source = source

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, (KeyError, TypeError, ValueError, AttributeError, IndexError, FedAsiError)):
            raise ProfileError(f"{self._source} is corrupt: {type(error).__name__} {error}") from error


def read_text(path: Path | str) -> str:
    """Return a file's text; ProfileError when it cannot be read."""
    try:
        return Path(path).read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise ProfileError(f"{path} cannot be read: {error}") from error


def read_versioned(text: str, source: str, newest: int, oldest: int = 1) -> dict[str, Any]:
    """Return the JSON object in `text`. Raises ProfileError if it is no object or its version is not supported."""
    try:
        data = json.loads(text)
    except ValueError as error:
        raise ProfileError(f"{source} is corrupt: not JSON ({error})") from error
    if not isinstance(data, dict) or not isinstance(data.get("version"), int):
        raise ProfileError(f"{source} is corrupt: it has no version")
    if data["version"] < oldest:
        raise ProfileError(
            f"{source} has version {data['version']}, which this release no longer reads; make it again"
        )
    if data["version"] > newest:
        raise ProfileError(f"{source} has version {data['version']}; this release reads up to {newest}")
    return data
