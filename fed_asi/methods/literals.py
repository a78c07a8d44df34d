"""Text such as "asi(ranks=(8, 8, 3, 3))": a name, and settings that are literals."""

from __future__ import annotations

import ast
from typing import Any

from fed_asi.errors import ConfigError


def arguments(text: str) -> tuple[str, dict[str, Any]]:
    """Return (name, settings) of "NAME" or "NAME(key=literal, ...)"; only literals are read.

    Raises ConfigError for anything else.
    """
    name, bracket, rest = text.strip().partition("(")
    if not bracket:
        return name, {}
    try:
        node = ast.parse(f"f({rest}", mode="eval").body
        if not isinstance(node, ast.Call) or node.args or any(k.arg is None for k in node.keywords):
            raise ValueError("not keyword arguments")
        return name, {str(k.arg): ast.literal_eval(k.value) for k in node.keywords}
    except (SyntaxError, ValueError) as error:
        raise ConfigError(
            f'method {text!r} is not understood; write such as "asi(ranks=(8, 8, 3, 3))"'
        ) from error
