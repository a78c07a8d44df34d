"""What one device is asked to do in one round."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

from fed_asi.errors import FedAsiError, first_line

JOB_VERSION = 1


@dataclass(frozen=True, slots=True)
class Job:
    """What one device is asked to do in one round; the small JSON of a message."""

    round: int
    partition_id: int
    budget_bytes: int | None  # None: unlimited
    batch_size: int
    micro_batch: int | None  # None: the planner chooses
    lr: float
    factors_round: int = 0  # start from the warm factors this device had after that round; 0: fresh
    check: bool = False  # hold the first side-by-side step against one micro-batch after another
    deadline_seconds: float = float("inf")
    phase: str = "train"  # or a pass of the federated calibration

    def to_json(self) -> str:
        """Return the job as JSON with its version."""
        return json.dumps({"version": JOB_VERSION, **asdict(self)}, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> Job:
        """Return the job that `to_json` wrote. Raises FedAsiError for another version, and for what is no job."""
        try:
            content = json.loads(text)
            if content.pop("version", None) != JOB_VERSION:
                raise FedAsiError("the server speaks another version: use the same fed_asi on both sides")
            return cls(**content)
        except (ValueError, TypeError, AttributeError, RecursionError) as error:
            raise FedAsiError(f"what the server sent is no job: {first_line(error)}") from None
