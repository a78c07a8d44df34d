"""What Flower's simulation engine lacks, added where it runs; without it in this process nothing happens.

Flower 1.41 puts an actor whose process died back into its pool, where every later message to it fails: a run
loses its workers one by one and says nothing. Ray can start such an actor anew; Flower does not ask it to.
"""

from __future__ import annotations

import sys
from typing import Any

ENGINE = "flwr.server.superlink.fleet.vce.vce_api"


def keep_actors_alive() -> None:
    """Let Ray restart worker processes that die. Called when the ClientApp is loaded, before any starts."""
    if ENGINE not in sys.modules:
        return
    from flwr.simulation.ray_transport import ray_actor

    actor: Any = ray_actor.ClientAppActor
    actor._default_options["max_restarts"] = -1
