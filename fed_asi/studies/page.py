"""A study's page: the answer first, then the details; one HTML file that works on a phone, light and dark."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from fed_asi.results.html_page import document, escape, folded, listing, picture_src, said
from fed_asi.results.night import by_day_and_night
from fed_asi.studies.drawing import Picture
from fed_asi.studies.figures import Pictures
from fed_asi.studies.findings import Findings
from fed_asi.studies.method import method
from fed_asi.studies.sentences import answer
from fed_asi.studies.statistics import Verdict
from fed_asi.studies.tables import Entry, Table, gap_lines, tables
from fed_asi.studies.wording import seeds

STYLE = """
p.answer { font-size: 17px; margin: 0 0 8px; } p.answer + p.answer { font-size: 15px; color: var(--soft); }
td { vertical-align: top; }
td small { display: block; color: var(--soft); font-size: 12px; }
th { vertical-align: bottom; white-space: normal; min-width: 72px; }
th:first-child, td:first-child { position: sticky; left: 0; background: var(--paper); }
th:first-child, td:first-child { white-space: normal; min-width: 110px; }
tr.baseline td { border-bottom-color: var(--soft); } .higher { color: var(--good); } .lower { color: var(--bad); }
summary { font-weight: 600; font-size: 18px; } li + li { margin-top: 6px; }
.figures { grid-template-columns: repeat(auto-fit, minmax(min(400px, 100%), 1fr)); } figure { max-width: 620px; }
"""


def render(found: Findings, pictures: Pictures, command: str | None = None) -> str:
    """Return the page as HTML. command: the command line that made it."""
    return document(found.study.title, _body(found, pictures, command), STYLE)


def _body(found: Findings, pictures: Pictures, command: str | None) -> Iterator[str]:
    yield f'<h1>{escape(found.study.title)}</h1>\n<p class="under">{escape(_under(found))}</p>\n'
    sentences = "".join(f'<p class="answer">{escape(one)}</p>' for one in answer(found))
    yield f"<section>{sentences}{_figures(pictures.answer)}</section>\n"
    first, *rest = tables(found)
    yield _table(found, first)
    for table in rest:
        yield _folded(table.title, _rows(found, table))
    yield _section("More of the frontier", pictures.frontiers)
    yield _section("On the way", pictures.curves)
    yield _section("What it took", pictures.costs)
    yield _section("Who took part", pictures.participation)
    if found.seeds and not pictures.participation:
        yield "<section><h2>Who took part</h2><p>Every device that was asked trained, every time.</p></section>\n"
    yield listing("Gaps", gap_lines(found), ' class="bad"')
    yield listing("Notes", found.notes)
    yield listing("How this was computed", list(method(found)))
    if command is not None:
        yield f"<section><h2>Do it again</h2><pre>{escape(command)}</pre></section>\n"


def _under(found: Findings) -> str:
    done = sum(map(len, found.runs.values()))
    runs = f"{done} of {len(found.study.cells)} runs"
    return f"{found.study.name} · {len(found.variants)} variants · {seeds(len(found.seeds))} · {runs}"


def _section(title: str, pictures: Sequence[Picture]) -> str:
    return f"<section><h2>{escape(title)}</h2>{_figures(pictures)}</section>\n" if pictures else ""


def _figures(pictures: Iterable[Picture]) -> str:
    shown = "".join(
        f'<figure><figcaption>{escape(one.caption)}</figcaption><img alt="{escape(one.caption)}" '
        f'src="{picture_src(by_day_and_night(one.svg))}">{said(one.says)}</figure>'
        for one in pictures
    )
    return f'<div class="figures">{shown}</div>' if shown else ""


def _table(found: Findings, table: Table) -> str:
    return f"<section><h2>{escape(table.title)}</h2>{_rows(found, table)}</section>\n"


def _folded(title: str, content: str) -> str:
    return f"<section>{folded(title, content)}</section>\n"


def _rows(found: Findings, table: Table) -> str:
    head = "".join(f"<th>{escape(heading)}</th>" for heading in table.headings)
    rows = "".join(
        f"<tr{_mark(name == found.study.baseline)}>{''.join(_cell(entry) for entry in row)}</tr>"
        for name, row in zip(found.variants, table.rows, strict=True)
    )
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>'


def _mark(baseline: bool) -> str:
    return ' class="baseline"' if baseline else ""


def _cell(entry: Entry) -> str:
    kind = f' class="{entry.verdict}"' if entry.verdict in (Verdict.HIGHER, Verdict.LOWER) else ""
    under = f"<small>{escape(entry.under)}</small>" if entry.under else ""
    return f"<td{kind}>{escape(entry.text)}{under}</td>"
