"""The project of docs/howto/own_code.md, written into a folder: a fleet with its own code for everything."""

from __future__ import annotations

import re
from pathlib import Path

PAGE = Path(__file__).parents[1] / "docs" / "howto" / "own_code.md"


def of_the_page() -> dict[str, str]:
    """Return the page's Python files by name."""
    return {
        re.match(r"# (\w+\.py)\n", code)[1]: code  # type: ignore[index]
        for code in re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    }


def files() -> dict[str, str]:
    """Return the project's files by name."""
    (toml,) = re.findall(r"```toml\n(.*?)```", PAGE.read_text(), re.DOTALL)
    return {**of_the_page(), "own.toml": toml}


def write(folder: Path, **changed: str) -> Path:
    """Write the project and return its fleet file. changed: text put before that of a file, by its stem."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files().items():
        (folder / name).write_text(changed.get(Path(name).stem, "") + text)
    return folder / "own.toml"
