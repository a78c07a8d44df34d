"""What one device is asked to do in one round."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Literal

from fed_asi.errors import FedAsiError, first_line
from fed_asi.fleets.resources import Resources, said

JOB_VERSION = 4  # version 3 sent every tensor whole


Twin = Literal["unlimited", "plain"]  # without the device's limits; by plain training of the same layers


@dataclass(frozen=True, slots=True)
class Job:
    """What one device is asked to do in one round, sent as the small JSON of a message.

    resources: what it has in that round. factors_round: start from the warm factors that this device kept after
    that round; 0: it has none. check: compare the first side-by-side step with one done micro-batch by micro-batch.
    phase: "train", or a pass of the federated calibration. twin: how to train once more for comparison, if at all.
    steps: number of optimizer steps, if fewer than all; None: all.
    """

    round: int
    partition_id: int
    resources: Resources
    lr: float
    factors_round: int = 0
    check: bool = False
    deadline_seconds: float = float("inf")
    phase: str = "train"
    twin: Twin | None = None
    steps: int | None = None

    @property
    def patience_seconds(self) -> float:
        """How long to wait for the reply, in seconds: twice the deadline if the device trains a twin, too."""
        return self.deadline_seconds * (1 if self.twin is None else 2)

    def to_json(self) -> str:
        """Return the job as JSON with its version; a twin and fewer steps are left out where they are not asked for."""
        content = asdict(self)
        for key in ("twin", "steps"):
            if content[key] is None:
                del content[key]  # so that a run without them sends no byte for them
        content["resources"] = said(self.resources)
        return json.dumps({"version": JOB_VERSION, **content}, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> Job:
        """Return the job that `to_json` wrote. Raises FedAsiError for another version or anything else."""
        try:
            content = json.loads(text)
            if content.pop("version", None) != JOB_VERSION:
                raise FedAsiError("the server speaks another version: use the same fed_asi on both sides")
            return cls(**{**content, "resources": Resources(**content["resources"])})
        except (ValueError, TypeError, AttributeError, KeyError, RecursionError) as error:
            raise FedAsiError(f"what the server sent is not a job: {first_line(error)}") from None
