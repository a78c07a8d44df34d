"""Profiles shared between runs: each is calibrated once, under an address made of all that decides its numbers.

    KEY.lock   held by the process that calibrates; others wait, and it is released if that process is killed
    KEY.json   a finished profile

Off unless FED_ASI_PROFILES_DIR is set. The address includes this package's own code, so a profile of another version
is never used.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fed_asi.errors import ProfileError, RunError
from fed_asi.files import write_file
from fed_asi.planning.profile import Profile

PROFILES_DIR = "FED_ASI_PROFILES_DIR"


def kept_profile(about: Mapping[str, Any], make: Callable[[], Profile]) -> Profile:
    """Return the profile with this address, calibrated now if no earlier run has done so.

    about: JSON values of everything that its numbers depend on, except torch and this package.
    Raises RunError where the folder cannot be used, and whatever `make` raises.
    """
    folder = os.environ.get(PROFILES_DIR)
    if not folder:
        return make()
    whole = {**about, "torch": torch.__version__, "threads": torch.get_num_threads(), "code": package_code()}
    key = hashlib.sha256(json.dumps(whole, sort_keys=True).encode()).hexdigest()[:32]
    path = Path(folder) / f"{key}.json"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.with_suffix(".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if path.exists():
                with suppress(ProfileError):  # a damaged one is made again
                    return Profile.load(path)
            made = make()
            write_file(path, made.to_json().encode())
            return Profile.load(path)
    except OSError as error:
        raise RunError(f"the profiles in {folder} failed: {error.strerror or error}") from error


def tensor_fingerprint(tensor: Tensor) -> str:
    """Return a hash of a tensor's numbers, shape and layout in memory."""
    digest = hashlib.sha256(f"{tensor.dtype} {tuple(tensor.shape)} {tensor.stride()}".encode())
    digest.update(tensor.detach().contiguous().numpy().tobytes())
    return digest.hexdigest()


@cache
def package_code() -> str:
    """Return a hash of this package's files."""
    digest = hashlib.sha256()
    home = Path(__file__).parents[1]
    for path in sorted(home.rglob("*.py")):
        digest.update(f"{path.relative_to(home)}\n".encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()
