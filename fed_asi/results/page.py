"""One self-contained HTML page about one or more runs: no script, no network, nothing beside the file."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping, Sequence

from fed_asi.results import table
from fed_asi.results.figures import Picture
from fed_asi.results.html_page import document, escape, listing, said
from fed_asi.results.settings import shown_settings
from fed_asi.results.summary import Summary

STYLE = """
th:last-child, td:last-child { text-align: left; } td:last-child { white-space: normal; }
.numbers { display: flex; flex-wrap: wrap; gap: 14px; margin: 0 0 20px; }
.number { background: var(--paper); border-radius: 10px; padding: 12px 18px; }
.number b { display: block; font-size: 24px; } .number span { color: var(--soft); font-size: 13px; }
.pair { grid-column: 1 / -1; } .pair div { overflow-x: auto; } .pair img { min-width: 680px; }
"""


def render(summaries: Sequence[Summary], drawn: Sequence[Mapping[str, Picture]]) -> str:
    """Return the page. drawn: the figures of each run; of several runs, first those of all together."""
    together, each = (drawn[:1], drawn[1:]) if len(summaries) > 1 else ([], drawn)
    title = " and ".join(summary.name for summary in summaries)
    body = [_figures("The runs together", figures) for figures in together]
    for summary, figures in zip(summaries, each, strict=True):
        body += _run(summary, figures)
    return document(title, body, STYLE)


def _run(summary: Summary, figures: Mapping[str, Picture]) -> Iterable[str]:
    run = summary.run
    yield f"<h1>{escape(summary.name)}</h1>\n"
    yield f'<p class="under">{escape(_under(summary))}</p>\n'
    yield listing("Missing", summary.missing, ' class="bad"')
    yield f'<div class="numbers">{"".join(_number(*pair) for pair in _numbers(summary))}</div>\n'
    yield f'<section><h2>What each budget bought</h2><div class="wide">{_table(summary)}</div>'
    yield f"{''.join(said(text) for text in table.reading(summary))}</section>\n"
    yield _figures("Figures", figures)
    yield from _lists(summary)
    yield f"<section><h2>Versions</h2><p>{escape(_versions(summary))}</p></section>\n"
    yield f"<section><h2>Resolved configuration</h2><pre>{_lines(shown_settings(run.config))}</pre></section>\n"


def _under(summary: Summary) -> str:
    run = summary.run
    return f"{summary.standing} · begun {run.created_at} · seed {run.seed} · {run.backend}, {run.threads} thread(s)"


def _numbers(summary: Summary) -> Iterable[tuple[str, str]]:
    first, final = summary.first, summary.final
    if first is not None and final is not None:
        yield f"{100 * (final.accuracy or 0):.1f} %", f"accuracy after {final.round} rounds"
        yield f"{100 * (first.accuracy or 0):.1f} %", "accuracy before"
        if final.worst_class_accuracy is not None:
            yield f"{100 * final.worst_class_accuracy:.1f} %", "accuracy of the worst class"
    trained = sum(group.trained for group in summary.groups)
    asked = sum(group.asked for group in summary.groups)
    yield f"{trained} of {asked}", "times a device that was asked trained"
    yield str(sum(group.devices for group in summary.groups)), "devices"
    yield f"{sum(record.host_seconds for record in summary.rounds):.0f} s", "of rounds on this machine"


def _number(value: str, meaning: str) -> str:
    return f'<div class="number"><b>{escape(value)}</b><span>{escape(meaning)}</span></div>'


def _table(summary: Summary) -> str:
    columns = table.columns(summary)
    head = "".join(f"<th>{escape(column.title)}</th>" for column in columns)
    rows = (
        "<tr>" + "".join(f"<td>{escape(column.cell(group))}</td>" for column in columns) + "</tr>"
        for group in summary.groups
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"


def _figures(title: str, figures: Mapping[str, Picture]) -> str:
    shown = (
        f"<figure{_pair(picture)}><figcaption>{escape(caption)}</figcaption><div>"
        f'<img alt="{escape(caption)}" src="data:image/png;base64,{base64.b64encode(picture.png).decode()}"></div>'
        f"{said(picture.says)}</figure>"
        for caption, picture in figures.items()
    )
    return f'<section><h2>{escape(title)}</h2><div class="figures">{"".join(shown)}</div></section>\n'


def _pair(picture: Picture) -> str:
    return ' class="pair"' if picture.pair else ""


def _lists(summary: Summary) -> Iterable[str]:
    causes = [f"{count} × {outcome}: {cause}" for outcome, cause, count in summary.causes]
    yield listing("Left out, and why", causes)
    yield listing("Notes", summary.notes)


def _lines(text: str) -> str:
    return "\n".join(escape(line) for line in text.split("\n"))


def _versions(summary: Summary) -> str:
    return " · ".join(f"{name} {version}" for name, version in sorted(summary.run.versions.items()))
