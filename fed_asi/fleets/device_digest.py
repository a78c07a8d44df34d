"""What tells a fleet's hardware and presence from another's, files that the fleet file names included.

A run's settings say a preset's name and a trace's path; what stands there may change between a kill and a resumption,
and the run would go on by another clock.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict

from fed_asi.fleets.device_keys import PresenceConfig
from fed_asi.fleets.fleet import Fleet
from fed_asi.fleets.hardware import Hardware
from fed_asi.fleets.traces import Traces, read_traces


def device_digest(fleet: Fleet) -> str | None:
    """Return a digest of what the devices are and when they are there; None where none says either.

    Where a file is does not enter, what is in it does. Raises ConfigError for a trace that cannot be read.
    """
    if not any(device.hardware or device.presence for device in fleet):
        return None
    digest, known = hashlib.sha256(), dict[tuple[Hardware | None, PresenceConfig | None], bytes]()
    for device in fleet:
        key = device.hardware, device.presence
        if key not in known:
            known[key] = _told(*key)
        digest.update(known[key])
    return digest.hexdigest()[:16]


def _told(hardware: Hardware | None, presence: PresenceConfig | None) -> bytes:
    own = None if presence is None else presence.model_dump(mode="json")
    if own is not None and own["trace"] is not None:
        own["trace"] = _of_traces(read_traces(own["trace"]))
    return json.dumps([None if hardware is None else asdict(hardware), own], sort_keys=True).encode()


def _of_traces(traces: Traces) -> str:
    digest = hashlib.sha256()
    for one in (traces.starts, traces.ends, traces.offsets, traces.periods, traces.origins):
        digest.update(one.tobytes())
    return digest.hexdigest()
