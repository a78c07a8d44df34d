"""One self-contained HTML page about one or more runs: no script, no network, no other files.

Its first screen answers whether the run worked, what each budget bought and what was left out; the rest gives
details.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from fed_asi.fleets.config import RunConfig
from fed_asi.results import first_screen, table
from fed_asi.results.figures import Picture
from fed_asi.results.first_screen import Answer
from fed_asi.results.html_page import document, escape, folded, listing, picture_src, rows, said
from fed_asi.results.now import Now
from fed_asi.results.settings import shown_settings
from fed_asi.results.summary import Summary
from fed_asi.units import format_seconds

RENEW_SECONDS = 5  # of a page that is served while its run goes on

STYLE = """
.answers { display: grid; grid-template-columns: 4fr 6fr 4fr; gap: 14px; margin: 0 0 20px; }
.answers section { margin: 0; padding: 16px 18px; min-width: 0; border-top: 3px solid var(--rule); }
.answers h2 { font-size: 13px; font-weight: 600; color: var(--soft); margin: 0 0 4px; }
.answers section.good { color: inherit; border-top-color: var(--good); }
.answers section.bad { color: inherit; border-top-color: var(--bad); }
.answers section.part { border-top-color: var(--part); }
.answers .verdict { font-size: 18px; line-height: 1.3; font-weight: 600; margin: 0 0 6px; }
.answers ul { list-style: none; padding: 0; font-size: 14px; } .answers li { margin: 0 0 4px; }
.answers li { display: -webkit-box; -webkit-box-orient: vertical; -webkit-line-clamp: 3; overflow: hidden; }
.answers table { table-layout: fixed; } .answers th { padding-top: 0; white-space: normal; font-size: 12px; }
.answers td { white-space: normal; line-height: 1.3; padding: 4px 6px; vertical-align: top; }
.answers td div { overflow: hidden; text-overflow: ellipsis; white-space: nowrap; }
.answers th:first-child { width: 35%; } .answers td:last-child { white-space: nowrap; }
.answers th:last-child { width: 36%; } .answers th small { font-weight: 400; }
.answers small { display: block; color: var(--soft); font-size: 12px; }
.answers td:first-child, .answers th:first-child { padding-left: 0; }
.answers td:last-child, .answers th:last-child { padding-right: 0; }
.bought th:last-child, .bought td:last-child { text-align: left; } .bought td:last-child { white-space: normal; }
figure details { font-size: 13px; color: var(--soft); margin: 4px 0 0; } figure details table { font-size: 12px; }
figure details .wide { max-height: 320px; overflow: auto; } .pair { grid-column: 1 / -1; }
@media (max-width: 800px) { .answers { grid-template-columns: 1fr; gap: 8px; margin: 0 0 10px; }
  .answers section { padding: 9px 12px; } .answers .verdict { font-size: 16px; margin: 0 0 2px; }
  .answers li { -webkit-line-clamp: 2; margin: 0 0 2px; font-size: 13px; }
  p.under { margin: 0 0 8px; font-size: 12px; } }
"""


def render(
    summaries: Sequence[Summary],
    drawn: Sequence[Mapping[str, Picture]],
    *,
    now: Now | None = None,
    served: bool = False,
) -> str:
    """Return the page. drawn: the figures of each run; of several runs, first those of all together.

    now: what a run is at. served: the page is asked for again and again, and renews itself while a run goes on.
    """
    together, each = (drawn[:1], drawn[1:]) if len(summaries) > 1 else ([], drawn)
    title = " and ".join(summary.name for summary in summaries)
    body = [_figures("The runs together", figures) for figures in together]
    for summary, figures in zip(summaries, each, strict=True):
        body += _run(summary, figures, now)
    going = served and any(summary.going for summary in summaries)
    return document(title, body, STYLE, renew_seconds=RENEW_SECONDS if going else None)


def _run(summary: Summary, figures: Mapping[str, Picture], now: Now | None) -> Iterable[str]:
    run = summary.run
    yield f"<h1>{escape(summary.name)}</h1>\n"
    yield f'<p class="under">{escape(_under(summary))}</p>\n'
    yield f'<div class="answers">{"".join(_answers(summary, now))}</div>\n'
    yield listing("Missing", summary.missing if not summary.going else (), ' class="bad"')
    columns = table.columns(summary)
    cells = ([column.cell(group) for column in columns] for group in summary.groups)
    yield '<section class="bought"><h2>What each budget bought, in full</h2>'
    yield rows([column.title for column in columns], cells)
    yield f"{''.join(said(text) for text in table.reading(summary))}</section>\n"
    yield _figures("Figures", figures)
    yield from _lists(summary)
    versions = f"<p>{escape(_versions(summary))}</p>"
    yield f"<section>{folded('Versions', versions)}</section>\n"
    settings = f"<pre>{_lines(shown_settings(run.config))}</pre>"
    yield f"<section>{folded('Resolved configuration', settings)}</section>\n"


def _under(summary: Summary) -> str:
    run = summary.run
    devices = RunConfig.from_json(run.config).num_devices  # known before devices are recorded
    took = format_seconds(sum(record.host_seconds for record in summary.rounds))
    return (
        f"{run.status} · begun {run.created_at} · {devices} devices · seed {run.seed} · {run.backend}, "
        f"{run.threads} {'thread' if run.threads == 1 else 'threads'} · rounds took {took} on this machine"
    )


def _answers(summary: Summary, now: Now | None) -> Iterator[str]:
    yield _answer("Did it work?", first_screen.did_it_work(summary, now))
    yield f"<section><h2>What did each budget buy?</h2>{_bought(summary)}</section>"
    yield _answer("What was left out?", first_screen.was_left_out(summary))


def _answer(question: str, found: Answer) -> str:
    lines = "".join(f"<li>{escape(line)}</li>" for line in found.lines[: first_screen.MOST_LINES] if line)
    more = len(found.lines) - first_screen.MOST_LINES
    more_line = f"<li>and {more} more, below</li>" if more > 0 else ""
    listed = f"<ul>{lines}{more_line}</ul>" if lines else ""
    return (
        f'<section class="{found.mark}"><h2>{escape(question)}</h2>'
        f'<p class="verdict">{escape(found.says)}</p>{listed}</section>'
    )


def _bought(summary: Summary) -> str:
    found = first_screen.bought(summary)
    cells = (
        f"<tr>{_cell(*one.group)}{_cell(*one.budget)}<td>{escape(one.gained)}</td></tr>"
        for one in found[: first_screen.MOST_GROUPS]
    )
    how = f"<small>{escape(first_screen.how_gained(summary))}</small>"
    head = f"<th>group</th><th>budget<small>largest step</small></th><th>accuracy{how}</th>"
    more = len(found) - first_screen.MOST_GROUPS
    below = said(f"and {more} more groups, below") if more > 0 else ""
    return f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(cells)}</tbody></table>{below}"


def _cell(text: str, under: str) -> str:
    return f'<td><div title="{escape(text)}">{escape(text)}</div><small>{escape(under)}</small></td>'


def _figures(title: str, figures: Mapping[str, Picture]) -> str:
    if not figures:
        return ""
    shown = "".join(_figure(caption, picture) for caption, picture in figures.items())
    return f'<section><h2>{escape(title)}</h2><div class="figures">{shown}</div></section>\n'


def _figure(caption: str, picture: Picture) -> str:
    upright = picture.upright
    narrow = "" if upright is None else f'<source media="(max-width: 800px)" srcset="{picture_src(upright)}">'
    image = f'<img alt="{escape(f"{caption}. {picture.says}")}" src="{picture_src(picture.svg)}">'
    numbers = ""
    if picture.table is not None:
        more = said(f"and {picture.table.more:,} more, in the run's records") if picture.table.more else ""
        numbers = folded("The numbers", rows(picture.table.headings, picture.table.rows) + more)
    kind = ' class="pair"' if upright is not None else ""
    return (
        f"<figure{kind}><figcaption>{escape(caption)}</figcaption>"
        f"{said(picture.says)}<picture>{narrow}{image}</picture>{numbers}</figure>"
    )


def _lists(summary: Summary) -> Iterable[str]:
    causes = [f"{count} × {outcome}: {cause}" for outcome, cause, count in summary.causes]
    yield listing("Left out, and why", causes)
    yield listing("Notes", summary.notes)


def _lines(text: str) -> str:
    return "\n".join(escape(line) for line in text.split("\n"))


def _versions(summary: Summary) -> str:
    return " · ".join(f"{name} {version}" for name, version in sorted(summary.run.versions.items()))
