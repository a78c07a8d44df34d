"""Every random choice of a run as a pure function of (root seed, what it is for)."""

from __future__ import annotations

import hashlib

import numpy as np
import torch


def derive(root: int, *path: str | int) -> int:
    """Return a 63-bit seed for the purpose that `path` names, independent of all other paths.

    root: the run's seed. path: words and numbers, such as "cohort", round.
    The seed depends on nothing else: not on call order, process, or global state.
    """
    text = repr((int(root), tuple((type(part).__name__, part) for part in path)))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little") >> 1


def generator(root: int, *path: str | int) -> torch.Generator:
    """Return a CPU torch generator seeded by `derive(root, *path)`."""
    return torch.Generator().manual_seed(derive(root, *path))


def rng(root: int, *path: str | int) -> np.random.Generator:
    """Return a numpy generator seeded by `derive(root, *path)`."""
    return np.random.default_rng(derive(root, *path))
