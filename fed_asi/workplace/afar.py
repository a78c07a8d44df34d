"""A workplace on a machine that cannot see its folder: files are copied, features come as devices need them.

Copies are kept in this machine's own folder (FED_ASI_NODE_DIR, or the user's cache), each workplace under the hash of
its files; they may be removed at any time between runs. Features are not recomputed here: the rows sent are the same to
the bit on any processor, and a device's rows are scattered over the groups in which the trunk computes.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from fed_asi.data.feature_rows import FeatureForm, FeatureRows, Rows
from fed_asi.data.features import FeatureStore
from fed_asi.errors import RunError
from fed_asi.files import replacing
from fed_asi.fleets.config import RunConfig
from fed_asi.workplace.features import Features, store_path
from fed_asi.workplace.kept_profiles import package_code
from fed_asi.workplace.opening import IMAGES, MANIFEST, PROFILE, RESOLUTIONS, open_workplace, profile_at
from fed_asi.workplace.place import Workplace
from fed_asi.workplace.uses import TEST, TRAIN, train_at

NODE_DIR = "FED_ASI_NODE_DIR"
FILES = (MANIFEST, "config.json", "index.npz", "base.pt", PROFILE, IMAGES)
FILE_PIECE_BYTES = 8 * 1024**2


@dataclass(frozen=True, slots=True)
class Listing:
    """The contents of a workplace.

    files: SHA-256 by name. features: of the training images, by use; none where they are off. code: a hash of this
    package's code, as its devices store profiles of their own beside the files.
    """

    files: Mapping[str, str]
    features: Mapping[str, FeatureForm]
    code: str

    @property
    def name(self) -> str:
        """The name of the folder in which it is kept: a hash of all its files, and of the code."""
        about = json.dumps([self.code, dict(self.files)], sort_keys=True)
        return hashlib.sha256(about.encode()).hexdigest()[:32]


class Source(Protocol):
    """A workplace as seen from a machine that cannot read its folder. All methods raise RunError, one line."""

    def listing(self) -> Listing:
        """Return its contents."""

    def piece(self, name: str, start: int) -> bytes:
        """Return the bytes of a file from `start` on, at most FILE_PIECE_BYTES; none at its end."""

    def rows(self, rows: Sequence[int], use: str = TRAIN) -> Rows:
        """Return the features of these rows, (n, ...), of one use."""


class Lender:
    """The source on the machine that has the workplace."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def listing(self) -> Listing:
        """Return what there is. Raises RunError where nothing is prepared."""
        forms = {
            use: FeatureForm(key, tuple(features.shape), str(features.numpy().dtype))
            for use, (key, features) in self._features.items()
        }
        names = (*FILES, *map(profile_at, self._keys))
        there = [name for name in names if (self._folder / name).exists()]
        return Listing({name: _hash_of(self._folder / name) for name in there}, forms, package_code())

    def piece(self, name: str, start: int) -> bytes:
        """Return the bytes of one file from `start` on. Raises RunError where it is not there."""
        try:
            with (self._folder / Path(name).name).open("rb") as file:
                file.seek(start)
                return file.read(FILE_PIECE_BYTES)
        except OSError as error:
            raise RunError(f"{self._folder / name} cannot be read: {error.strerror or error}") from error

    def rows(self, rows: Sequence[int], use: str = TRAIN) -> Rows:
        """Return the features of these rows of one use."""
        if use not in self._features:
            raise RunError(f"{self._folder} has no features")
        found: Rows = np.ascontiguousarray(self._features[use][1].numpy()[np.asarray(rows)])
        return found

    @cached_property
    def _manifest(self) -> dict[str, Any]:
        try:
            return dict(json.loads((self._folder / MANIFEST).read_text()))
        except (OSError, ValueError) as error:
            raise RunError(f"no prepared workplace in {self._folder}") from error

    @property
    def _keys(self) -> dict[int, str | None]:
        """The features' keys at each resolution beside the model's; None where they are off."""
        return {int(pixels): said["features"] for pixels, said in self._manifest.get(RESOLUTIONS, {}).items()}

    @cached_property
    def _features(self) -> dict[str, tuple[str, Tensor]]:
        """Key and numbers of the training images' features, by use; none where they are off."""
        keys = {TRAIN: self._manifest["features"]}
        keys |= {train_at(pixels): key for pixels, key in self._keys.items()}
        store = FeatureStore(self._folder / self._manifest["store"])
        found = {use: (key, store.find(key)) for use, key in keys.items() if key is not None}
        if any(features is None for _, features in found.values()):
            raise RunError(f"the features of this run are gone from {store.folder}; go on with --resume")
        return {use: (key, features) for use, (key, features) in found.items() if features is not None}


def node_folder() -> Path:
    """Return the folder in which this machine keeps copies of workplaces."""
    own = os.environ.get(NODE_DIR)
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return Path(own) if own else cache / "fed_asi" / "from_afar"


def open_afar(source: Source, seen: Path) -> Workplace:
    """Return a workplace whose folder this machine may not see, for devices to work in.

    seen: where the folder would be; it is used if all of its files are the source's. The server's test images are not
    copied, and its test features are empty.
    Raises RunError where something cannot be fetched, or cannot be stored here.
    """
    listing = source.listing()
    near = _holds(seen, listing)
    folder = seen if near else _fetched(source, listing)
    features = Features({TEST: torch.empty(0)})
    stores = [folder / store_path()]
    if near:
        stores.insert(0, folder / json.loads((folder / MANIFEST).read_text())["store"])
    for use, form in listing.features.items():
        whole = next((one for store in stores if (one := _found(store, form.key)) is not None), None)
        if whole is None:
            limit = RunConfig.from_json((folder / "config.json").read_text()).compute.features_limit
            rows = FeatureRows(FeatureStore(stores[-1], limit), form, partial(source.rows, use=use))
            features |= Features({use: rows.features}, bring={use: rows.bring})
        else:
            features |= Features({use: whole})
    fetch = None if near else partial(_fetch, source, folder)
    return open_workplace(folder, features=features, fetch=fetch)


def _found(store: Path, key: str) -> Tensor | None:
    """Return a complete entry of a store that this machine may not see."""
    with suppress(RunError):
        return FeatureStore(store).find(key)
    return None


def _holds(folder: Path, listing: Listing) -> bool:
    """Return whether a folder has the source's files, to the byte."""
    try:
        return all(_hash_of(folder / name) == content for name, content in listing.files.items())
    except OSError:
        return False


def _hash_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _fetched(source: Source, listing: Listing) -> Path:
    """Return this machine's own copy of a workplace, made by the first process that needs it."""
    folder = node_folder() / listing.name
    with _alone(folder.with_suffix(".lock")):
        if not _holds(folder, listing):
            shutil.rmtree(folder, ignore_errors=True)
            for name, content in listing.files.items():
                _fetch(source, folder, name)
                if _hash_of(folder / name) != content:
                    raise RunError(f"{name} came to {folder} other than it was sent; start again")
    return folder


def _fetch(source: Source, folder: Path, name: str) -> None:
    """Copy one file, whole."""
    with replacing(folder / name) as file:
        at = 0
        while piece := source.piece(name, at):
            file.write(piece)
            at += len(piece)


@contextmanager
def _alone(lock: Path) -> Iterator[None]:
    """Let one process of this machine in at a time."""
    try:
        lock.parent.mkdir(parents=True, exist_ok=True)
        with lock.open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield
    except OSError as error:
        raise RunError(
            f"{lock.parent} failed: {error.strerror or error}; set {NODE_DIR} to another folder"
        ) from error
