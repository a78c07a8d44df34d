"""Write the reference of the command line, from the parsers themselves.

python experiments/command_line_page.py > docs/reference/command_line.md
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from importlib import import_module

from fed_asi.commands.main import COMMANDS

HEAD = """# The command line

`fed-asi COMMAND --help` says the same. `python -m fed_asi` is the same program. Written from the parsers by
`python experiments/command_line_page.py > docs/reference/command_line.md`.

| command | what it does |
|---|---|"""

FOOT = """
## Exit codes

| code | meaning |
|---|---|
| 0 | all is well |
| 1 | a round or a device was lost, or no device trained; `compare`: the runs differ; `study`: there are gaps |
| 2 | something that you can correct; one line says what, and nothing was started |
| 130 | stopped by you; the same work can be resumed |

Results go to standard output; progress and errors go to standard error. What each error means: [errors](errors.md).
"""


def parser_of(command: str) -> argparse.ArgumentParser:
    """Return a command's parser, built as `fed-asi` builds it."""
    parser = argparse.ArgumentParser(prog=f"fed-asi {command}", add_help=False)
    import_module(f"fed_asi.commands.{command.replace('-', '_')}").add_arguments(parser)
    return parser


def rows(parser: argparse.ArgumentParser) -> Iterator[str]:
    """Yield a row for each argument of a parser."""
    for action in parser._actions:
        if action.help != argparse.SUPPRESS:
            yield f"| {_written(action)} | {_cell(_help(action))} |"


def _written(action: argparse.Action) -> str:
    value = action.metavar or action.dest.upper()
    if action.choices is not None and action.metavar is None:
        value = "|".join(str(choice) for choice in action.choices)
    words = value if isinstance(value, tuple) else (value,)
    if not action.option_strings:
        return f"`{_cell(' '.join(words))}`"
    taken = "" if action.nargs == 0 else f" {' '.join(words)}"
    return ", ".join(f"`{option}{_cell(taken)}`" for option in action.option_strings)


def _help(action: argparse.Action) -> str:
    text = action.help or ""
    return text % vars(action) if "%(" in text else text.replace("%%", "%")


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def page() -> str:
    """Return the page as Markdown."""
    lines = [HEAD, *(f"| [`{name}`](#{name}) | {summary} |" for name, summary in COMMANDS.items())]
    for name in COMMANDS:
        lines += [
            "",
            f"## {name}",
            "",
            _about(name),
            "",
            "| argument | meaning |",
            "|---|---|",
            *rows(parser_of(name)),
        ]
    return "\n".join([*lines, FOOT])


def _about(name: str) -> str:
    doc = (import_module(f"fed_asi.commands.{name.replace('-', '_')}").__doc__ or "").strip().split("\n\n")[0]
    text = " ".join(doc.split()).removeprefix(f"`fed-asi {name}`: ")
    return f"{text[:1].upper()}{text[1:]}"


if __name__ == "__main__":
    print(page(), end="")
