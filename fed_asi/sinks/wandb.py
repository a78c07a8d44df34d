"""Weights & Biases, offline unless WANDB_MODE says otherwise: `wandb sync RUN/wandb/offline-run-*` sends it later."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fed_asi.sinks import register


@register("wandb")
class WandB:
    """A history by round, and the settings as the run's config; a resumed run keeps the id of the earlier one."""

    def __init__(self, folder: Path) -> None:
        """Load wandb. Raises ImportError without it."""
        import wandb

        self._wandb: Any = wandb
        self._folder = folder

    def begin(self, name: str, config: str, resumed: bool) -> None:
        """Start a run."""
        self._run = self._wandb.init(
            project="fed_asi",
            name=name,
            id=hashlib.sha256(str(self._folder.absolute()).encode()).hexdigest()[:16],
            resume="allow",
            dir=str(self._folder.parent),  # which gets a folder called wandb
            config=json.loads(config),
            mode=os.environ.get("WANDB_MODE", "offline"),
        )

    def round(self, round: int, values: Mapping[str, float]) -> None:
        """Log a step."""
        self._run.log(dict(values), step=round)

    def end(self, finished: bool) -> None:
        """Say how the run ended."""
        self._run.finish(exit_code=0 if finished else 1)
