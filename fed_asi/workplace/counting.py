"""The sizes of a run's frozen trunk and trained tail, from which the time of a device is counted."""

from __future__ import annotations

import json
from pathlib import Path

import torch

from fed_asi.compression import cut
from fed_asi.compression.graph import analyse
from fed_asi.files import read_tensors
from fed_asi.fleets.config import RunConfig
from fed_asi.memory.work import Network, network_of
from fed_asi.workplace.opening import MANIFEST, rebuild


def networks_of(folder: Path, config: RunConfig) -> tuple[Network, Network]:
    """Return the sizes of the trunk, with batch norms folded as on a device, and of the tail.

    folder: a workplace that `prepare` wrote. The network is built again, so that nothing in training is touched.
    """
    manifest = json.loads((folder / MANIFEST).read_text())
    trunk, tail = rebuild(config, manifest, read_tensors(folder / "base.pt"))
    quick = cut.folded(trunk)
    image = torch.zeros(1, 3, config.model.resolution, config.model.resolution)
    with torch.inference_mode():
        features = quick(image)
    return network_of(quick, image), network_of(tail.eval(), features.clone(), analyse(tail).pooled)
