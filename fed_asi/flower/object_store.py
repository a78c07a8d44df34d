"""Whether the nodes of a Ray cluster have the object store that a run needs, said before its long part."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from fed_asi.data.feature_rows import PIECE_BYTES
from fed_asi.errors import ConfigError
from fed_asi.units import format_bytes

FULL = (
    "ObjectStoreFullError",
    "OutOfDiskError",
)  # what Ray raises where a store, and the disk behind it, is full


def needed_bytes(sent_bytes: int, workers: int) -> int:
    """Return the least object store of a node, in bytes.

    sent_bytes: of a round's tensors, there once. workers: on this node, each of which holds a reply of that size, or a
    piece of what comes.
    """
    return sent_bytes + workers * max(sent_bytes, PIECE_BYTES)


def check_stores(nodes: Sequence[Mapping[str, Any]], sent_bytes: int, cpus_per_client: int) -> None:
    """Raise ConfigError, a problem a node, where a store is too small. nodes: as `ray.nodes` lists them."""
    if problems := list(_problems(nodes, sent_bytes, cpus_per_client)):
        raise ConfigError(problems)


def _problems(nodes: Sequence[Mapping[str, Any]], sent_bytes: int, cpus_per_client: int) -> Iterator[str]:
    for node in nodes:
        resources = node.get("Resources", {})
        workers = int(resources.get("CPU", 0) // cpus_per_client)
        has, needs = int(resources.get("object_store_memory", 0)), needed_bytes(sent_bytes, workers)
        if not node.get("Alive") or not workers or has >= needs:
            continue
        yield (
            f"compute.ray_address: node {node.get('NodeManagerAddress')} has an object store of {format_bytes(has)}, "
            f"and its {workers} workers need {format_bytes(needs)}: weights of {format_bytes(sent_bytes)}, and as much "
            f"a worker; start it with --object-store-memory={needs}, or fewer CPUs"
        )
