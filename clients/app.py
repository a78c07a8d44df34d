"""The Flower ClientApp that `flwr run` and every SuperNode load: what a device is asked, and who answers.

A query asks who the device is; a train message carries a job and the global tensors, and brings back an update
or the reason why there is none. The work is done in `fed_asi.devices`, the translation in `fed_asi.flower.client`.
"""

from __future__ import annotations

from fed_asi.flower.client import client_app

app = client_app()
