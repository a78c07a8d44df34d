"""What of a run is on the device that it computes on: everything, or what fits there and stays exact."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from fed_asi.fleets.config import RunConfig
from fed_asi.fleets.gpu_share import gpu_share
from fed_asi.gpus import CPU, GPU, device_named, gpus_here

FEATURES = 0.5  # of a worker's share of GPU memory; the rest is for its steps


def trunk_device(config: RunConfig) -> torch.device:
    """Return where a run's frozen trunk computes: on the run's device, except for a trunk in eight bits.

    Its numbers are integers, and the same on every machine as long as no sum of them is rounded, as a GPU's
    convolutions may do.
    """
    return CPU if config.storage.form == "int8" else device_named(config.compute.device)


def room_bytes(config: RunConfig, device: torch.device) -> float:
    """Return how many bytes of features a process may keep on a device."""
    if device.type != GPU:
        return math.inf
    share = gpu_share(config) if config.compute.backend == "flower" else 1.0
    return FEATURES * share * gpus_here()[device.index].memory_bytes


def kept_there(tensors: Sequence[Tensor | None], device: torch.device, room: float) -> list[Tensor | None]:
    """Return tensors on a device as long as there is room for them, in their order; the others stay where they are."""
    found = list(tensors)
    for place, tensor in enumerate(tensors):
        if tensor is not None and tensor.nbytes <= room:
            room -= tensor.nbytes
            found[place] = tensor.to(device)
    return found
