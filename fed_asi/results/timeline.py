"""One round on the run's clock: what each device did when, from its records."""

from __future__ import annotations

from dataclasses import dataclass

from fed_asi.results.store import RunStore

MOST_BARS = 30  # the most that a reader can tell apart


@dataclass(frozen=True, slots=True)
class Bar:
    """One device's round: download, computing and upload, one after another. begun: seconds after the round's start.

    In buffered rounds most devices began before the round did: begun is then below 0.
    """

    partition_id: int
    group: str
    outcome: str
    begun: float
    download: float
    compute: float
    upload: float


@dataclass(frozen=True, slots=True)
class Timeline:
    """A round of a length in seconds. bars: by partition id; left_out: how many more devices it asked."""

    round: int
    seconds: float
    bars: tuple[Bar, ...]
    left_out: int


_BARS = """
SELECT partition_id, group_name, outcome, coalesce(began_seconds - :start, 0.0), download_seconds,
       trunk_seconds + step_seconds + judging_seconds, upload_seconds
FROM device_rounds JOIN devices USING (partition_id)
WHERE round = :round AND sim_seconds IS NOT NULL ORDER BY sim_seconds DESC, partition_id
"""


def timeline_of(store: RunStore) -> Timeline | None:
    """Return the last round that took time, only its longest bars if there are many; None without a clock."""
    timed = [
        (one.round, one.sim_start_seconds, one.sim_end_seconds - one.sim_start_seconds)
        for one in store.rounds()
        if one.sim_start_seconds is not None and one.sim_end_seconds is not None
    ]
    lasting = [one for one in timed if one[2] > 0.0]
    if not lasting:
        return None
    round, start, seconds = lasting[-1]
    bars = [Bar(*row) for row in store.select(_BARS, {"round": round, "start": start})]
    longest = sorted(bars[:MOST_BARS], key=lambda one: one.partition_id)
    return Timeline(round, seconds, tuple(longest), len(bars) - len(longest))
