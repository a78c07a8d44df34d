"""What every page has: one file, no script, nothing from elsewhere, names shown as they are."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence

from fed_asi.texts import visible

STYLE = """
:root { color-scheme: light; --ink: #22303c; --soft: #5b6b79; --paper: #fff; --around: #f4f6f8; --line: #edf0f3;
  --rule: #d8dfe5; --bad: #c0392b; }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--around); margin: 0; }
main { max-width: 1180px; margin: 0 auto; padding: 24px; }
section { background: var(--paper); border-radius: 10px; padding: 20px 24px; margin: 0 0 20px; }
section, .number { box-shadow: 0 1px 3px #0001; }
h1 { font-size: 26px; margin: 8px 0 2px; } h2 { font-size: 18px; margin: 0 0 12px; }
p.under { color: var(--soft); margin: 0 0 18px; }
table { border-collapse: collapse; width: 100%; font-size: 14px; font-variant-numeric: tabular-nums; }
th, td { text-align: right; padding: 6px; border-bottom: 1px solid var(--line); white-space: nowrap; }
th { font-weight: 600; color: var(--soft); border-bottom: 2px solid var(--rule); }
th:first-child, td:first-child { text-align: left; }
.wide { overflow-x: auto; }
.figures { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(420px, 100%), 1fr)); gap: 18px; }
figure { margin: 0; min-width: 0; } img { width: 100%; height: auto; }
figcaption { font-weight: 600; margin: 0 0 4px; } p.says { color: var(--soft); font-size: 13px; margin: 6px 0 0; }
ul { margin: 0; padding-left: 20px; } .bad { color: var(--bad); }
pre { background: var(--around); padding: 12px; border-radius: 8px; overflow-x: auto; font-size: 13px; }
"""


def escape(text: str) -> str:
    """Return a text as HTML shows it as it is; what would act on how a line is read is escaped."""
    return html.escape(visible(text))


def document(title: str, body: Iterable[str], style: str) -> str:
    """Return a whole page. title: a text; body: HTML; style: beyond STYLE."""
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)} · fed_asi</title><style>{STYLE}{style}</style></head>\n"
        f"<body><main>\n{''.join(body)}</main></body></html>\n"
    )


def listing(title: str, entries: Sequence[str], style: str = "") -> str:
    """Return a section with a list of texts; nothing where there are none."""
    items = "".join(f"<li>{escape(entry)}</li>" for entry in entries)
    return f"<section><h2>{title}</h2><ul{style}>{items}</ul></section>\n" if entries else ""


def said(text: str) -> str:
    """Return a text in small letters, as under a figure; nothing for none."""
    return f'<p class="says">{escape(text)}</p>' if text else ""
