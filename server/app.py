"""The Flower ServerApp that `flwr run` and the SuperLink load: it does the run that `run_config` names.

The rounds are those of `fed_asi.rounds`, which do not depend on Flower; `fed_asi.flower.server` waits for the devices,
and `fed_asi.flower.executor` sends jobs to them.
"""

from __future__ import annotations

from pathlib import Path

from fed_asi.flower.server import server_app

app = server_app(Path(__file__).parents[1])
