"""How fast the simulation is: compared with a plain Flower app, by size of the fleet, and on a Ray cluster.

    python experiments/benchmarks/simulation.py plain  [--rounds 20] [--workers 4]
    python experiments/benchmarks/simulation.py alone  [--rounds 20]   # ours without the plain app
    python experiments/benchmarks/simulation.py scale  [--devices 10 100 1000 5000]
    python experiments/benchmarks/simulation.py start  [--devices 100 20000 49000]   # what comes before round 1
    python experiments/benchmarks/simulation.py needs  # images whose features the cifar10 fleet needs, and when
    python experiments/benchmarks/simulation.py cluster   # two nodes on loopback

All figures of one table are measured in one call on one machine; --log FILE keeps what is printed.
"""

from __future__ import annotations

import argparse
import os
import resource
import sys
import tempfile
from pathlib import Path

import fleet_tables
import start_tables


def main() -> int:
    """Make one table; return 0."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("table", choices=("plain", "alone", "scale", "start", "needs", "cluster"))
    parser.add_argument("--rounds", type=int, default=20, help="of each app in `plain`")
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--devices", type=int, nargs="+", default=[10, 100, 1000, 5000])
    parser.add_argument("--features", help="an existing store; without it, building one is part of the time")
    parser.add_argument("--log", type=Path)
    given = parser.parse_args()
    tables = {
        "plain": fleet_tables.against_plain,
        "alone": fleet_tables.alone,
        "scale": fleet_tables.by_scale,
        "start": start_tables.starts,
        "needs": start_tables.needs,
        "cluster": fleet_tables.on_cluster,
    }
    with tempfile.TemporaryDirectory() as temporary:
        os.environ["FED_ASI_FEATURES_DIR"] = given.features or f"{temporary}/features"
        lines = tables[given.table](given, Path(temporary))
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    lines += [
        "",
        f"{given.workers} workers; largest process {peak:.0f} MiB; command: `python {' '.join(sys.argv)}`",
    ]
    print("\n".join(lines))
    if given.log:
        with given.log.open("a") as log:
            log.write("\n".join(["", *lines, ""]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
