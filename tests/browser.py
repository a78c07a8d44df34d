"""Headless Chromium, where installed: how a page renders at a given width, and a screenshot of it."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome")
OPTIONS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--hide-scrollbars",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-extensions",
    "--virtual-time-budget=5000",
)  # fmt: skip


def chromium() -> str:
    """The browser's command; a test that needs one is skipped without."""
    found = next((path for name in NAMES if (path := shutil.which(name))), None)
    if found is None:
        pytest.skip("skipped: no Chromium")
    return found


def run(folder: Path, *words: str) -> str:
    """What the browser prints, with a profile of its own in a folder."""
    command = [chromium(), *OPTIONS, f"--user-data-dir={folder / 'profile'}", *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=True).stdout


MEASURE = """
<!DOCTYPE html><meta charset="utf-8"><body>{frames}<pre id="found"></pre><script>
addEventListener("load", () => {{
  const found = [];
  for (const frame of document.querySelectorAll("iframe")) {{
    const page = frame.contentDocument, root = page.documentElement;
    const bottom = one => Math.max(0, ...[...page.querySelectorAll(one)].map(e => e.getBoundingClientRect().bottom));
    found.push({{width: root.clientWidth, reach: root.scrollWidth, answers: bottom(".answers"),
      questions: [...page.querySelectorAll(".answers h2")].map(e => e.textContent),
      images: [...page.images].map(e => e.naturalWidth > 0)}});
  }}
  document.getElementById("found").textContent = JSON.stringify(found);
}});
</script>
"""


def measured(folder: Path, page: str, sizes: list[tuple[int, int]]) -> list[dict[str, Any]]:
    """How a page lies at each size: its width and how far it reaches to the side, where the answers end, its images."""
    frames = "".join(
        f'<iframe width="{width}" height="{height}" style="border:0" srcdoc="{html.escape(page)}"></iframe>'
        for width, height in sizes
    )
    around = folder / "around.html"
    around.write_text(MEASURE.format(frames=frames), encoding="utf-8")
    printed = run(folder, "--dump-dom", around.as_uri())
    found = re.search(r'<pre id="found">(.*?)</pre>', printed, re.DOTALL)
    assert found is not None, printed[-2000:]
    answer: list[dict[str, Any]] = json.loads(html.unescape(found[1]))
    return answer
