"""The result as Markdown and LaTeX, read back as their readers do."""

from __future__ import annotations

from markdown_it import MarkdownIt

from fed_asi.studies.documents import latex, markdown
from fed_asi.studies.drawing import Picture
from fed_asi.studies.findings import find
from fed_asi.studies.tables import headline

PICTURES = [Picture(f"picture-{i}", "Accuracy | saved", "Bars.", b"", b"") for i in range(3)]


def cells(text: str) -> list[list[str]]:
    """The rows of every table of a page."""
    rows: list[list[str]] = []
    for token in MarkdownIt("commonmark").enable("table").parse(text):
        if token.type == "tr_open":
            rows.append([])
        elif token.type == "inline" and token.level > 3:
            rows[-1].append("".join(child.content for child in token.children))
    return rows


def test_markdown_has_the_answer_the_tables_the_gaps_and_the_way(made):
    found = find(made)
    text = markdown(found, PICTURES, "fed-asi study made.toml")
    rows = cells(text)
    assert rows[0] == list(headline(found).headings)
    assert rows[2][:3] == ["better", "83.0 (75.5 to 90.5)", "+10.0 (+7.5 to +12.5, higher)"]
    assert rows[5][2] == "no common seed"
    for part in (
        "# A made\\-up study" if "\\-" in text else "# A made-up study",
        "![Accuracy \\| saved](picture-0.svg)",
        "    fed-asi study made.toml",
        "## Gaps\n\n* no run of gone, seed 0: killed: out of memory",
        "paired t-test",
    ):
        assert part in text
    assert text.index("picture-1.svg") < text.index("## Every variant") < text.index("picture-2.svg")


def test_latex_is_a_tabular_of_booktabs(made):
    lines = latex(find(made), "fed-asi study made.toml").splitlines()
    assert lines[:2] == ["% A made-up study", "% fed-asi study made.toml"]
    start = lines.index(r"\toprule")
    assert lines[start - 1] == r"\begin{tabular}{lrrrrrrrr}"
    assert [lines[start + 2], *lines[-2:]] == [r"\midrule", r"\bottomrule", r"\end{tabular}"]
    rows = lines[start + 3 : -2]
    assert len(rows) == 5
    assert {row.count(" & ") for row in rows} == {8}
    assert all(row.endswith(r" \\") for row in rows)
    assert rows[1].startswith(
        r"better & 83.0 {\footnotesize (75.5 to 90.5)} & +10.0 {\footnotesize (+7.5 to +12.5,"
    )
