"""Views of a run's records for SQL users: accuracy over simulated time, and which devices took part."""

from __future__ import annotations

import sqlite3

VIEWS = {
    # Joules are those of all rounds so far; group_name NULL: the server's test images, and the whole fleet's joules.
    # What no row of the run tells is NULL, never 0.
    "accuracy_over_time": """
SELECT NULL AS group_name, round, accuracy, sim_end_seconds / 3600.0 AS sim_hours,
       CASE WHEN sim_end_seconds IS NOT NULL AND EXISTS (SELECT 1 FROM rounds WHERE energy_joules IS NOT NULL)
           THEN total(energy_joules) OVER (ORDER BY round) END AS energy_joules
FROM rounds
UNION ALL
SELECT group_name, group_rounds.round, group_rounds.accuracy, sim_end_seconds / 3600.0,
       CASE WHEN sim_end_seconds IS NOT NULL THEN (
           SELECT CASE WHEN count(one.energy_joules) THEN
               total(one.energy_joules) FILTER (WHERE one.round <= group_rounds.round) END
           FROM device_rounds AS one JOIN devices USING (partition_id)
           WHERE devices.group_name = group_rounds.group_name) END
FROM group_rounds JOIN rounds USING (round)
""",
    "took_part": """
SELECT partition_id, group_name, device_name, count(round) AS asked,
       count(nullif(outcome = 'trained', 0)) AS trained, count(nullif(outcome = 'late', 0)) AS late,
       count(nullif(outcome = 'left', 0)) AS left_early, count(nullif(outcome = 'absent', 0)) AS absent,
       sum(sim_seconds) FILTER (WHERE outcome <> 'absent' OR sim_seconds > 0) AS sim_seconds,
       sum(energy_joules) FILTER (WHERE outcome <> 'absent' OR sim_seconds > 0) AS energy_joules
FROM devices LEFT JOIN device_rounds USING (partition_id) GROUP BY partition_id ORDER BY partition_id
""",
}

# Their columns in order, with the types of SQL, which an empty view does not tell.
VIEW_COLUMNS = {
    "accuracy_over_time": {
        "group_name": "TEXT",
        "round": "INTEGER",
        "accuracy": "REAL",
        "sim_hours": "REAL",
        "energy_joules": "REAL",
    },
    "took_part": {
        "partition_id": "INTEGER",
        "group_name": "TEXT",
        "device_name": "TEXT",
        "asked": "INTEGER",
        "trained": "INTEGER",
        "late": "INTEGER",
        "left_early": "INTEGER",
        "absent": "INTEGER",
        "sim_seconds": "REAL",
        "energy_joules": "REAL",
    },
}


def make_views(connection: sqlite3.Connection, *, temporary: bool = False) -> None:
    """Create the views that are missing. temporary: outside the file, which does not change."""
    if temporary:
        connection.execute("PRAGMA temp_store = MEMORY")
    for name, query in VIEWS.items():
        connection.execute(f"CREATE {'TEMP ' if temporary else ''}VIEW IF NOT EXISTS {name} AS {query}")
