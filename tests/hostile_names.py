"""Names with a meaning for whatever shows them: rich, matplotlib, HTML, YAML, compose, SQL, a shell, a terminal."""

from __future__ import annotations

HOSTILE = (
    "[/edge]",
    "[bold]phones[/bold]",
    "[link=x]y",
    ":bug:",
    r"$\frac{$",
    r"a\$b $c$",
    "_hidden",
    "<script>alert(1)</script>",
    "a & b &lt; \"c\" 'd'",
    "x: y # z",
    "- {a: [b",
    "a\nservices: {evil: {image: x}}",
    "line\u2028break\x85here",
    "${HOME} $$ $(id)",
    "'; DROP TABLE run; --",
    "a b; rm -rf ~",
    "esc\x1b[2J\x1b]0;title\x07",
    "back\rover\b\x00",
    "bidi\u202egpj.exe",
    "lone\udc80surrogate",
    "{0} %s {name}",
    "日本 زبان",
    "x" * 300,
    " ",
)

RECORDED = tuple(name for name in HOSTILE if "\udc80" not in name)  # SQLite and TOML hold Unicode alone
