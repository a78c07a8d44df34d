"""A user's text as data: group and run names, paths, causes and notes, escaped so that nothing interprets them.

Every text that is not this program's own goes through one of these functions before it is shown: a terminal would
obey its control characters, a shell its quotes, YAML its colons. `results.rich_text` does the same for rich.
"""

from __future__ import annotations

import re
import shlex
import unicodedata
from collections.abc import Iterable
from pathlib import Path

JOINERS = "\u200c\u200d"  # invisible, and part of how Persian, Hindi and emoji are written


def visible(text: object) -> str:
    r"""Return a text as one line of printable characters; the others are escaped as in Python, such as \n and \x1b."""
    return "".join(
        one if _is_shown(one) else one.encode("unicode_escape").decode("ascii") for one in str(text)
    )


def _is_shown(one: str) -> bool:
    return one.isprintable() or one in JOINERS or unicodedata.category(one) == "Zs"


def visible_lines(text: str) -> str:
    """Return a text of several lines, each as `visible` returns it."""
    return "\n".join(visible(line) for line in text.split("\n"))


def clipped(text: object, chars: int) -> str:
    """Return the visible text, cut to at most `chars` characters."""
    shown = visible(text)
    return shown if len(shown) <= chars else f"{shown[: chars - 1]}…"


def command_line(words: Iterable[object]) -> str:
    """Return a command line of these words, quoted for a shell, for people to copy."""
    return " ".join(_shell_word(str(word)) for word in words)


def resume_line(folder: Path) -> str:
    """Return the command that resumes a run, for people to copy."""
    path = str(folder)
    return command_line(["fed-asi", "run", "--resume", f"./{path}" if path.startswith("-") else path])


def _shell_word(word: str) -> str:
    if visible(word) == word:
        return shlex.quote(word)
    return "$'" + "".join(_in_dollar_quotes(one) for one in word) + "'"


def _in_dollar_quotes(one: str) -> str:
    """Return a character as bash, zsh and POSIX 2024 read it between $' and '."""
    if one in "'\\":
        return f"\\{one}"
    if visible(one) == one:
        return one
    way = "surrogateescape" if "\udc80" <= one <= "\udcff" else "surrogatepass"  # else a lone surrogate
    return "".join(f"\\{byte:03o}" for byte in one.encode(errors=way))


def is_unicode(text: str) -> bool:
    """Return whether a text can be encoded; a path with bytes that are not UTF-8 cannot."""
    return not any(unicodedata.category(one) == "Cs" for one in text)


def in_yaml(text: str) -> str:
    """Return a text as a double-quoted YAML scalar on one line, valid wherever a value is."""
    return '"' + "".join(_in_yaml(one) for one in text) + '"'


def _in_yaml(one: str) -> str:
    if one in '"\\':
        return f"\\{one}"
    if one.isprintable():
        return one
    code = ord(one)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


_MARKS = re.compile(r"[\\`*_{}\[\]<>#|~$&@!^]|:(?=\S)")


def in_markdown(text: object) -> str:
    """Return a text escaped for GitHub's Markdown, in table cells too."""
    return _MARKS.sub(lambda mark: f"\\{mark.group()}", visible(text))


_IN_LATEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "`": r"\textasciigrave{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "'": r"\textquotesingle{}",
    '"': r"\textquotedbl{}",  # like the one above, a command of the T1 encoding
    "-": "{-}",  # two in a row would become a dash
    "[": "{[}",  # at the start of a row it would be read as an argument of the row before
    "]": "{]}",
    "\u2026": r"\ldots{}",
    "\u2212": "$-$",
    "\u00d7": r"$\times$",
    **{one: f"\\{one}" for one in "&%$#_{}"},
}


def in_latex(text: object) -> str:
    """Return a text escaped for LaTeX, in table cells too (T1 encoding; letters are left to the engine)."""
    return "".join(_IN_LATEX.get(one, one) for one in visible(text))
