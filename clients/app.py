"""The Flower ClientApp that `flwr run` and every SuperNode load: it answers what a device is asked.

A query asks which device this is. A train message carries a job and the global tensors, and is answered with an update
or with the reason why there is none. `fed_asi.devices` does the work, `fed_asi.flower.client` translates the messages.
"""

from __future__ import annotations

from fed_asi.flower.client import client_app

app = client_app()
