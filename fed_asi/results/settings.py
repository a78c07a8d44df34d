"""A run's settings for readers: without the texts of user code, whose names contain its hash."""

from __future__ import annotations

import json
from typing import Any

from fed_asi.fleets.own_names import CODE


def without_code(config: str) -> dict[str, Any]:
    """Return the settings in a run's record, without the texts of files of code."""
    settings: dict[str, Any] = json.loads(config)
    return {key: value for key, value in settings.items() if key != CODE}


def shown_settings(config: str) -> str:
    """Return the settings in a run's record as indented JSON, each file of code by its length in lines."""
    settings: dict[str, Any] = json.loads(config)
    if CODE not in settings:
        return config
    files = {address: f"{len(text.splitlines())} lines" for address, text in settings[CODE].items()}
    own = {CODE: files} if files else {}
    return json.dumps({**without_code(config), **own}, indent=2, ensure_ascii=False)
