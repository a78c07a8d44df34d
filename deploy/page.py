"""The page's container: serves each run's page from its current records, live while the run goes on.

`python -m deploy.page --port 8080`; it is the same page that `fed-asi watch` serves.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from deploy.settings import RUNS, say
from fed_asi.results.now import read_now
from fed_asi.results.serving import Pages, server

STARTING = "The fleet is starting: the SuperLink makes its keys, devices enrol, the runner prepares the run."


def starting() -> str:
    """Return what is shown before there is a run: what the runner is doing."""
    now = read_now(RUNS)
    return f"{STARTING} {f'Now: {now.text}. ' if now else ''}This page renews itself."


def how_on(_folder: Path) -> str:
    """Return the command that resumes a run whose runner was stopped."""
    return "docker compose start runner"


def main() -> int:
    """Serve the pages until stopped."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, default=8080)
    port = parser.parse_args().port
    serving = server(Pages(RUNS, how_on, starting), "0.0.0.0", port)
    published = os.environ.get("FED_ASI_PORT", "8080")
    say("page", f"the run's page is at http://localhost:{published}, on this machine only")
    with serving:
        serving.serve_forever()
    return 0


if __name__ == "__main__":
    sys.exit(main())
