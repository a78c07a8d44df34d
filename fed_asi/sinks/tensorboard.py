"""TensorBoard's event files: `tensorboard --logdir RUN/tensorboard`."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from fed_asi.sinks import register


@register("tensorboard")
class TensorBoard:
    """Scalars by round, and the settings as a text."""

    def __init__(self, folder: Path) -> None:
        """Find torch's writer. Raises ImportError without tensorboard."""
        self._writer_of: Any = import_module("torch.utils.tensorboard").SummaryWriter
        self._folder = folder

    def begin(self, name: str, config: str, resumed: bool) -> None:
        """Open a new event file beside those of before, which TensorBoard reads as one."""
        self._writer = self._writer_of(str(self._folder))
        if not resumed:
            self._writer.add_text("settings", f"```json\n{config}\n```")

    def round(self, round: int, values: Mapping[str, float]) -> None:
        """Add a point to each curve; what is there can be seen at once."""
        for name, value in values.items():
            self._writer.add_scalar(name, value, round)
        self._writer.flush()

    def end(self, finished: bool) -> None:
        """Close the file."""
        self._writer.close()
