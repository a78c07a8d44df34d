"""A study's tables as Markdown and as LaTeX."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from fed_asi.studies.drawing import Picture
from fed_asi.studies.findings import Findings
from fed_asi.studies.method import method
from fed_asi.studies.sentences import answer
from fed_asi.studies.tables import Entry, Table, gap_lines, headline, tables
from fed_asi.texts import in_latex, in_markdown, visible


def markdown(found: Findings, pictures: Sequence[Picture], command: str | None = None) -> str:
    """Return the study's report as GitHub Markdown, with links to its pictures as SVG beside it.

    command: the command line that made it.
    """
    return "\n".join(_markdown(found, pictures, command)).rstrip() + "\n"


def _markdown(found: Findings, pictures: Sequence[Picture], command: str | None) -> Iterator[str]:
    yield f"# {in_markdown(found.study.title)}"
    for sentence in answer(found):
        yield f"\n{in_markdown(sentence)}"
    if command is not None:
        yield f"\n    {visible(command)}"
    for one in pictures[:2]:
        yield from _shown(one)
    for table in tables(found):
        yield f"\n## {in_markdown(table.title)}\n"
        yield from _markdown_rows(table)
    yield from _section("Gaps", gap_lines(found))
    yield from _section("Notes", found.notes)
    if len(pictures) > 2:
        yield "\n## Figures"
    for one in pictures[2:]:
        yield from _shown(one)
    yield from _section("How this was computed", method(found))


def _shown(one: Picture) -> Iterator[str]:
    yield f"\n![{in_markdown(one.caption)}]({one.name}.svg)"
    yield f"\n*{in_markdown(one.caption)}.* {in_markdown(one.says)}"


def _section(title: str, lines: Iterable[str]) -> Iterator[str]:
    items = [f"* {in_markdown(line)}" for line in lines]
    if items:
        yield f"\n## {title}\n"
        yield from items


def _markdown_rows(table: Table) -> Iterator[str]:
    yield f"| {' | '.join(map(in_markdown, table.headings))} |"
    yield f"|---|{'---:|' * (len(table.headings) - 1)}"
    for row in table.rows:
        yield f"| {' | '.join(_markdown_entry(entry) for entry in row)} |"


def _markdown_entry(entry: Entry) -> str:
    parts = [in_markdown(entry.text), f"({in_markdown(entry.under)})" if entry.text and entry.under else ""]
    return " ".join(filter(None, parts)) or in_markdown(entry.under)


def latex(found: Findings, command: str | None = None) -> str:
    """Return the first table as a LaTeX tabular with booktabs; comments at the top name the packages to load.

    command: the command line that made it.
    """
    table = headline(found)
    lines = [
        f"% {visible(found.study.title)}",
        *([f"% {visible(command)}"] if command is not None else []),
        r"% needs \usepackage[T1]{fontenc}, \usepackage{textcomp} and \usepackage{booktabs}",
        f"\\begin{{tabular}}{{l{'r' * (len(table.headings) - 1)}}}",
        r"\toprule",
        " & ".join(in_latex(heading) for heading in table.headings) + r" \\",
        r"\midrule",
        *(" & ".join(_latex_entry(entry) for entry in row) + r" \\" for row in table.rows),
        r"\bottomrule",
        r"\end{tabular}",
    ]
    return "\n".join(lines) + "\n"


def _latex_entry(entry: Entry) -> str:
    if not entry.text or not entry.under:
        return in_latex(entry.text or entry.under)
    return f"{in_latex(entry.text)} {{\\footnotesize ({in_latex(entry.under)})}}"
