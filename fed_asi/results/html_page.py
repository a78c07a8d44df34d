"""What all pages share: one file, no script, nothing loaded from elsewhere, names shown exactly."""

from __future__ import annotations

import base64
import html
from collections.abc import Iterable, Sequence

from fed_asi.results.drawing import INK, PAPER
from fed_asi.results.night import NIGHT
from fed_asi.texts import visible

STYLE = f"""
:root {{ color-scheme: light dark; --ink: {INK}; --soft: #5b6b79; --paper: {PAPER}; --around: #f4f6f8; --line: #edf0f3;
  --rule: #d8dfe5; --bad: #c0392b; --good: #00694c; --part: #8a5a00; }}
@media (prefers-color-scheme: dark) {{ :root {{ --ink: {NIGHT[INK]}; --soft: #9fb0be; --paper: {NIGHT[PAPER]};
  --around: #12181e; --line: #2a343d; --rule: #3b4853; --bad: #ff8a7a; --good: #5fd3ac; --part: #f0b45a; }} }}
body {{ font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--around); margin: 0; }}
main {{ max-width: 1180px; margin: 0 auto; padding: 24px; }}
section {{ background: var(--paper); border-radius: 10px; padding: 20px 24px; margin: 0 0 20px; }}
section, .number {{ box-shadow: 0 1px 3px #0001; }}
h1 {{ font-size: 26px; margin: 8px 0 2px; }} h2 {{ font-size: 18px; margin: 0 0 12px; }}
p, li, h1, h2, td, figcaption {{ overflow-wrap: anywhere; }}
p.under {{ color: var(--soft); margin: 0 0 18px; }}
table {{ border-collapse: collapse; width: 100%; font-size: 14px; font-variant-numeric: tabular-nums; }}
th, td {{ text-align: right; padding: 6px; border-bottom: 1px solid var(--line); white-space: nowrap; }}
th {{ font-weight: 600; color: var(--soft); border-bottom: 2px solid var(--rule); }}
th:first-child, td:first-child {{ text-align: left; }}
.wide {{ overflow-x: auto; }}
.figures {{ display: grid; gap: 18px; grid-template-columns: repeat(auto-fit, minmax(min(420px, 100%), 1fr)); }}
figure {{ margin: 0; min-width: 0; }} img {{ width: 100%; height: auto; }}
figcaption {{ font-weight: 600; margin: 0 0 4px; }} p.says {{ color: var(--soft); font-size: 13px; margin: 6px 0 0; }}
summary {{ cursor: pointer; }}
ul {{ margin: 0; padding-left: 20px; }} .bad {{ color: var(--bad); }} .good {{ color: var(--good); }}
pre {{ background: var(--around); padding: 12px; border-radius: 8px; overflow-x: auto; font-size: 13px; }}
@media (max-width: 600px) {{ main {{ padding: 8px; }} h1 {{ font-size: 21px; }}
  section {{ padding: 14px 12px; margin: 0 0 10px; }} }}
"""


def escape(text: str) -> str:
    """Return a text as HTML shows it as it is; what would act on how a line is read is escaped."""
    return html.escape(visible(text))


def document(title: str, body: Iterable[str], style: str, *, renew_seconds: int | None = None) -> str:
    """Return a whole page. title: a text; body: HTML; style: added to STYLE; renew_seconds: until it reloads."""
    renew = "" if renew_seconds is None else f'<meta http-equiv="refresh" content="{renew_seconds}">'
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">{renew}'
        f"<title>{escape(title)} · fed_asi</title><style>{STYLE}{style}</style></head>\n"
        f"<body><main>\n{''.join(body)}</main></body></html>\n"
    )


def picture_src(svg: bytes) -> str:
    """Return a picture as a data URL."""
    return f"data:image/svg+xml;base64,{base64.b64encode(svg).decode()}"


def rows(headings: Sequence[str], cells: Iterable[Sequence[str]]) -> str:
    """Return a table of texts."""
    head = "".join(f"<th>{escape(heading)}</th>" for heading in headings)
    body = ("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in cells)
    return (
        f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{"".join(body)}</tbody></table></div>'
    )


def folded(title: str, content: str) -> str:
    """Return content that is shown when its title is clicked. content: HTML."""
    return f"<details><summary>{escape(title)}</summary>{content}</details>"


def listing(title: str, entries: Sequence[str], style: str = "") -> str:
    """Return a section with a list of texts; empty if there are none."""
    items = "".join(f"<li>{escape(entry)}</li>" for entry in entries)
    return f"<section><h2>{title}</h2><ul{style}>{items}</ul></section>\n" if entries else ""


def said(text: str) -> str:
    """Return a text in small letters, as below a figure; empty if there is none."""
    return f'<p class="says">{escape(text)}</p>' if text else ""
