"""Text such as "asi(ranks=(8, 8, 3, 3))": a name, and settings that are literals.

Python's own parser is not used: in 3.11 to 3.11.7 and in 3.12.0 it sometimes fails while another thread parses too,
as numpy does for the header of every array that it reads (CPython issue 106905).
"""

from __future__ import annotations

import re
from typing import Any

from fed_asi.errors import ConfigError

_TOKEN = re.compile(
    r"""\s*(?:
        (?P<number> [-+]? (?:\d[\d_]*\.?[\d_]*|\.\d[\d_]*) (?:[eE][-+]?\d+)? (?!\w) )
      | (?P<text> '(?:[^'\\]|\\.)*' | "(?:[^"\\]|\\.)*" )
      | (?P<word> [^\W\d]\w* )
      | (?P<sign> [()\[\],=] )
    )""",
    re.VERBOSE | re.DOTALL,
)
_ESCAPE = re.compile(r"\\(?:x([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|(.))", re.DOTALL)
_ESCAPED = {"n": "\n", "r": "\r", "t": "\t", "\\": "\\", "'": "'", '"': '"'}
_WORDS = {"True": True, "False": False, "None": None}
_CLOSING = {"(": ")", "[": "]"}

Token = tuple[str, str]  # (kind, characters); the kind is one of _TOKEN's groups


def arguments(text: str) -> tuple[str, dict[str, Any]]:
    """Return (name, settings) of "NAME" or "NAME(key=literal, ...)".

    A literal is a number, a quoted text, True, False, None, or a tuple or list of literals, as Python writes them.
    Raises ConfigError for anything else.
    """
    name, bracket, rest = text.strip().partition("(")
    if not bracket:
        return name, {}
    try:
        return name, _settings(_tokens(rest))
    except (ValueError, OverflowError, RecursionError) as error:
        raise ConfigError(
            f'method {text!r} is not understood; write such as "asi(ranks=(8, 8, 3, 3))"'
        ) from error


def _tokens(text: str) -> list[Token]:
    """Return the tokens of a text, last one first. Raises ValueError for characters that start no token."""
    found: list[Token] = []
    at, text = 0, text.rstrip()
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None or match.lastgroup is None:
            raise ValueError(f"no literal begins with {text[at:]!r}")
        found.append((match.lastgroup, match[match.lastgroup]))
        at = match.end()
    return found[::-1]


def _settings(tokens: list[Token]) -> dict[str, Any]:
    """Return the settings of a call, up to its closing bracket, which must be the last token."""
    settings: dict[str, Any] = {}
    while not _is_next(tokens, ")"):
        kind, key = _next(tokens)
        if kind != "word" or key in settings or not _is_next(tokens, "="):
            raise ValueError("not keyword arguments")
        settings[key] = _literal(tokens)
        if not _is_next(tokens, ",") and tokens[-1:] != [("sign", ")")]:
            raise ValueError("no comma between two settings")
    if tokens:
        raise ValueError("text after the call")
    return settings


def _literal(tokens: list[Token]) -> Any:
    kind, characters = _next(tokens)
    if kind == "number":
        return _number(characters)
    if kind == "text":
        return _ESCAPE.sub(_unescaped, characters[1:-1])
    if kind == "word" and characters in _WORDS:
        return _WORDS[characters]
    if kind == "sign" and characters in _CLOSING:
        return _sequence(tokens, characters)
    raise ValueError(f"{characters!r} is not a literal")


def _sequence(tokens: list[Token], opening: str) -> Any:
    """Return a tuple or a list; brackets around one literal without a comma stand for the literal."""
    items: list[Any] = []
    comma = True
    while not _is_next(tokens, _CLOSING[opening]):
        if not comma:
            raise ValueError("no comma between two items")
        items.append(_literal(tokens))
        comma = _is_next(tokens, ",")
    if opening == "[":
        return items
    return tuple(items) if comma or len(items) != 1 else items[0]


def _number(characters: str) -> int | float:
    plain = characters.lstrip("+-")
    if plain.replace("_", "").isdigit():
        return int(characters)
    return float(characters)


def _unescaped(match: re.Match[str]) -> str:
    for code in match.groups()[:3]:
        if code:
            return chr(int(code, 16))
    if match[4] not in _ESCAPED:
        raise ValueError(f"unknown escape \\{match[4]}")
    return _ESCAPED[match[4]]


def _is_next(tokens: list[Token], sign: str) -> bool:
    """Return whether this sign comes next, and if so, consume it."""
    if not tokens:
        raise ValueError("a bracket is not closed")
    if tokens[-1] != ("sign", sign):
        return False
    tokens.pop()
    return True


def _next(tokens: list[Token]) -> Token:
    if not tokens:
        raise ValueError("a bracket is not closed")
    return tokens.pop()
