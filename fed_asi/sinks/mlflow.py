"""MLflow: a run on the server that MLFLOW_TRACKING_URI names, or else in a file in the run's folder."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fed_asi.sinks import register

ID_FILE = "run_id"


@register("mlflow")
class MLflow:
    """Metrics by round, and the settings as a file; a resumed run continues the one that it began."""

    def __init__(self, folder: Path) -> None:
        """Load MLflow. Raises ImportError without it."""
        import mlflow

        self._mlflow: Any = mlflow
        self._folder = folder

    def begin(self, name: str, config: str, resumed: bool) -> None:
        """Start a run, or continue an earlier one."""
        self._folder.mkdir(parents=True, exist_ok=True)
        if not os.environ.get("MLFLOW_TRACKING_URI"):
            self._use_own_files()
        noted = self._folder / ID_FILE
        if resumed and noted.exists():
            self._mlflow.start_run(run_id=noted.read_text())
            return
        noted.write_text(self._mlflow.start_run(run_name=name).info.run_id)
        self._mlflow.log_text(config, "fleet.json")

    def _use_own_files(self) -> None:
        folder = self._folder.absolute()
        self._mlflow.set_tracking_uri(f"sqlite:///{folder / 'mlflow.db'}")
        if self._mlflow.get_experiment_by_name("fed_asi") is None:
            self._mlflow.create_experiment("fed_asi", artifact_location=(folder / "artifacts").as_uri())
        self._mlflow.set_experiment("fed_asi")

    def round(self, round: int, values: Mapping[str, float]) -> None:
        """Log a step."""
        self._mlflow.log_metrics({_allowed(name): value for name, value in values.items()}, step=round)

    def end(self, finished: bool) -> None:
        """Say how the run ended."""
        self._mlflow.end_run("FINISHED" if finished else "FAILED")


def _allowed(name: str) -> str:
    """Return a name made of characters that MLflow accepts; group names may have others."""
    return re.sub(r"[^\w\-./ ]", "_", name, flags=re.ASCII)
