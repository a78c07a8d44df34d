"""What a node's object store must hold, and the line that says so before a run begins."""

from __future__ import annotations

from typing import Any

import pytest
from ray import exceptions

from fed_asi.errors import ConfigError
from fed_asi.flower.object_store import FULL, check_stores, needed_bytes

MIB = 1024**2


def node(store_mib: int, cpus: int = 4, **changes: Any) -> dict[str, Any]:
    resources = {"CPU": float(cpus), "object_store_memory": float(store_mib * MIB)}
    return {"Alive": True, "NodeManagerAddress": "10.0.0.7", "Resources": resources, **changes}


def test_a_node_needs_the_rounds_tensors_once_and_a_reply_or_a_piece_a_worker() -> None:
    assert needed_bytes(40 * MIB, 4) == 40 * MIB + 4 * 40 * MIB
    assert needed_bytes(1 * MIB, 2) == 1 * MIB + 2 * 8 * MIB


def test_nodes_with_room_are_taken() -> None:
    nobody = node(1, cpus=0)
    gone = node(1, Alive=False)
    check_stores([node(200), node(120, cpus=2), nobody, gone], 40 * MIB, 1)
    check_stores([node(120)], 40 * MIB, 2)


def test_each_node_without_is_named_with_what_to_do() -> None:
    with pytest.raises(ConfigError) as raised:
        check_stores([node(199), node(500), node(10, NodeManagerAddress="10.0.0.8")], 40 * MIB, 1)
    assert raised.value.problems == [
        "compute.ray_address: node 10.0.0.7 has an object store of 199.0 MiB, and its 4 workers need 200.0 MiB: "
        "weights of 40.0 MiB, and as much a worker; start it with --object-store-memory=209715200, or fewer CPUs",
        "compute.ray_address: node 10.0.0.8 has an object store of 10.0 MiB, and its 4 workers need 200.0 MiB: "
        "weights of 40.0 MiB, and as much a worker; start it with --object-store-memory=209715200, or fewer CPUs",
    ]


def test_ray_calls_a_full_store_as_it_did() -> None:
    assert all(issubclass(getattr(exceptions, name), exceptions.RayError) for name in FULL)
