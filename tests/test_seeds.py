"""Seeds: fixed forever, and different for every purpose."""

from __future__ import annotations

import torch

from fed_asi import seeds


def test_derive_never_changes() -> None:
    # A frozen value: changing it would silently change every recorded run.
    assert seeds.derive(7, "frozen", 3) == 4905514015651879107


def test_paths_differ() -> None:
    paths = [(), ("a",), ("a", 1), ("a", "1"), (1, "a"), ("a", 2), ("b",)]
    assert len({seeds.derive(0, *path) for path in paths} | {seeds.derive(1, *path) for path in paths}) == 14


def test_global_state_is_left_alone() -> None:
    before = torch.random.get_rng_state()
    torch.rand(3, generator=seeds.generator(0, "x"))
    seeds.rng(0, "x").random()
    assert torch.equal(before, torch.random.get_rng_state())
