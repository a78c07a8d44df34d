"""GPUs and the workers of a run: the keys of a fleet file, checked, and the share of a GPU that each worker takes."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from math import floor

from fed_asi.fleets.config import RunConfig
from fed_asi.gpus import CPU, gpus_here, lacking
from fed_asi.machine import cpus_here

FINEST = 10_000  # Ray's resources come in steps of 1 / FINEST


def workers(config: RunConfig) -> int:
    """Return how many devices work at once on this machine: as many as asked for, or as CPUs and GPUs allow."""
    compute = config.compute
    if compute.workers is not None:
        return compute.workers
    by_cpus = max(1, cpus_here() // compute.cpus_per_client)
    return by_cpus if compute.gpus_per_client is None else max(1, min(by_cpus, room(config)))


def gpus_used(config: RunConfig) -> int:
    """Return how many GPUs of this machine the workers use: none, a named one, or all."""
    if config.compute.device == CPU.type:
        return 0
    return 1 if ":" in config.compute.device else len(gpus_here())


def gpu_share(config: RunConfig) -> float:
    """Return the share of a GPU that each worker takes, from 0 to 1: as asked for, or equal shares."""
    used, given = gpus_used(config), config.compute.gpus_per_client
    if not used:
        return 0.0
    return floor(FINEST / -(-workers(config) // used)) / FINEST if given is None else given


def room(config: RunConfig) -> int:
    """Return how many workers fit on this machine's GPUs at the share asked for; a worker uses one GPU."""
    return gpus_used(config) * floor(1 / (config.compute.gpus_per_client or 1) + 1e-9)


def gpus_fit(config: RunConfig, broken: Collection[str], _cpus: int) -> Iterator[str]:
    """Yield what this machine cannot provide of the device and GPUs that a run asks for."""
    compute = config.compute
    if any(place.startswith("compute") for place in broken):
        return
    problem = lacking(compute.device)
    if problem is not None:
        yield f"compute.device: {problem}"
    elif compute.ray_address is not None and ":" in compute.device:
        yield f'compute.device: "{compute.device}", but on a cluster Ray says which GPU a worker has; use "cuda"'
    elif compute.gpus_per_client is not None and compute.device == CPU.type:
        yield f'compute.gpus_per_client: {compute.gpus_per_client:g}, but compute.device is "cpu"; set it to "cuda"'
    elif _too_many(config):
        yield (
            f"compute.workers: {compute.workers} workers of {compute.gpus_per_client:g} GPUs each, "
            f"but {room(config)} fit on the {gpus_used(config)} of this machine that they use"
        )


def _too_many(config: RunConfig) -> bool:
    compute = config.compute
    if compute.backend != "flower" or compute.ray_address is not None:
        return False
    asked = None not in (compute.workers, compute.gpus_per_client)
    return asked and (compute.workers or 0) > room(config)
