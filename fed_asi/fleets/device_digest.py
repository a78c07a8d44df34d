"""What tells a fleet's hardware and presence from another's, files that the fleet file names included.

A run's settings say a preset's name and a trace's path; what stands there may change between a kill and a resumption,
and the run would go on by another clock.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict

from fed_asi.fleets.fleet import Fleet
from fed_asi.fleets.traces import Traces, read_traces


def device_digest(fleet: Fleet) -> str | None:
    """Return a digest of what the devices are and when they are there; None where none says either.

    Where a file is does not enter, what is in it does. Raises ConfigError for a trace that cannot be read.
    """
    if not any(device.hardware or device.presence for device in fleet):
        return None
    digest, files = hashlib.sha256(), dict[str, str]()
    for device in fleet:
        hardware = None if device.hardware is None else asdict(device.hardware)
        presence = None if device.presence is None else device.presence.model_dump(mode="json")
        if presence is not None and (path := presence.pop("trace")) is not None:
            files[path] = files.get(path) or _of_traces(read_traces(path))
            presence["trace"] = files[path]
        digest.update(json.dumps([hardware, presence], sort_keys=True).encode())
    return digest.hexdigest()[:16]


def _of_traces(traces: Traces) -> str:
    digest = hashlib.sha256()
    for one in (traces.starts, traces.ends, traces.offsets, traces.periods, traces.origins):
        digest.update(one.tobytes())
    return digest.hexdigest()
