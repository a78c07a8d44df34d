"""A digest that identifies a fleet's hardware and presence, including files that the fleet file names.

A run's settings hold the name of a preset and the path of a trace. If their content changed between a kill and a
resume, the run would go on by another clock.
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
    """Return a digest of the devices' hardware and presence; None if neither is described.

    It covers the content of files, not their paths. Raises ConfigError for a trace that cannot be read.
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
