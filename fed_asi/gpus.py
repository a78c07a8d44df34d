"""The GPUs that torch can use here, their devices, and asynchronous copies to them.

Random numbers are always drawn on the CPU, so they are the same wherever a run computes. Results computed on a GPU
differ from the CPU's in the last bits.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from fed_asi.errors import ConfigError, RunError, first_line
from fed_asi.units import format_bytes

CPU = torch.device("cpu")
GPU = "cuda"  # torch's word for them, those of AMD included


@dataclass(frozen=True, slots=True)
class Gpu:
    """One GPU: its index here, its name, and its memory in bytes."""

    number: int
    name: str
    memory_bytes: int

    def __str__(self) -> str:
        return f"{GPU}:{self.number} {self.name}, {format_bytes(self.memory_bytes)}"


def gpus_here() -> list[Gpu]:
    """Return the GPUs that torch can use in this process, by number."""
    if not torch.cuda.is_available():
        return []
    every = enumerate(map(torch.cuda.get_device_properties, range(torch.cuda.device_count())))
    return [Gpu(number, one.name, one.total_memory) for number, one in every]


def why_none() -> str:
    """Return why torch can use no GPU here; only meant for a process where it cannot."""
    if torch.version.cuda is None and torch.version.hip is None:
        return f"torch {torch.__version__} is built for the CPU alone"
    return f"torch {torch.__version__} sees none: no driver, or CUDA_VISIBLE_DEVICES hides them"


def lacking(name: str) -> str | None:
    """Return why a device is not available here, and what to do; None where it is.

    name: "cpu", "cuda" or "cuda:N".
    """
    if name == CPU.type:
        return None
    here, wanted = gpus_here(), torch.device(name).index or 0
    if not here:
        return f'"{name}", but there is no GPU on this machine: {why_none()}; use "cpu"'
    if wanted >= len(here):
        there = f'"{GPU}:0"' + (f' to "{GPU}:{len(here) - 1}"' if len(here) > 1 else "")
        return f'"{name}", but the GPUs of this machine are {there}'
    return None


def device_named(name: str) -> torch.device:
    """Return the device called "cpu", "cuda" (the first GPU that this process sees) or "cuda:N".

    Raises ConfigError where it is not available.
    """
    problem = lacking(name)
    if problem is not None:
        raise ConfigError([f"compute.device: {problem}"])
    device = torch.device(name)
    return device if device.type == CPU.type else torch.device(device.type, device.index or 0)


def device_of(model: nn.Module) -> torch.device:
    """Return the device of a network: that of its first parameter or buffer; the CPU if it has neither."""
    return next((one.device for one in (*model.parameters(), *model.buffers())), CPU)


def sent(tensor: Tensor, device: torch.device) -> Tensor:
    """Return a tensor on a device (itself if it is there already); copies to a GPU are asynchronous."""
    if tensor.device.type != CPU.type or device.type == CPU.type:
        return tensor.to(device)
    held = tensor.pin_memory() if device.type == GPU else tensor
    return held.to(device, non_blocking=True)


@contextmanager
def exact(device: torch.device) -> Iterator[None]:
    """Make a GPU compute in full float32, with deterministic convolutions, inside the block; the CPU always does.

    By default torch computes convolutions in a format with ten bits of mantissa: their gradients are off by 1e-3.
    Raises RunError where the GPU's memory is full.
    """
    if device.type != GPU:
        yield
        return
    flags = torch.backends.cudnn
    try:
        with flags.flags(enabled=flags.enabled, benchmark=False, deterministic=True, allow_tf32=False):
            yield
    except torch.OutOfMemoryError as error:
        raise RunError(
            f"{device} has no memory left ({first_line(error)}): let fewer devices be at work at once, "
            "with compute.workers or a larger compute.gpus_per_client"
        ) from error
