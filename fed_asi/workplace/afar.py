"""A workplace on a machine that cannot see its folder: the files come as they are, features as devices need them.

What comes is kept in this machine's own folder (FED_ASI_NODE_DIR, else the user's cache), each workplace under the hash
of its files, and may be removed at any time between runs. Features are not made again here: a row that comes is the
same to the bit on any processor, and a device's rows lie scattered over the groups that the frozen trunk takes.
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
from typing import Protocol

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
from fed_asi.workplace.place import IMAGES, MANIFEST, Workplace, open_workplace

NODE_DIR = "FED_ASI_NODE_DIR"
FILES = (MANIFEST, "config.json", "index.npz", "base.pt", "profile.json", IMAGES)
FILE_PIECE_BYTES = 8 * 1024**2


@dataclass(frozen=True, slots=True)
class Listing:
    """What a workplace is made of.

    files: SHA-256 by name. features: of the training images; None: they are off. code: a hash of this package's, whose
    devices leave profiles of their own beside the files.
    """

    files: Mapping[str, str]
    features: FeatureForm | None
    code: str

    @property
    def name(self) -> str:
        """The folder's name where it is kept: a hash of all its files, and of the code."""
        about = json.dumps([self.code, dict(self.files)], sort_keys=True)
        return hashlib.sha256(about.encode()).hexdigest()[:32]


class Source(Protocol):
    """Where the workplace is, as a machine asks it that cannot see it. All of it raises RunError, one line."""

    def listing(self) -> Listing:
        """Return what there is."""

    def piece(self, name: str, start: int) -> bytes:
        """Return the bytes of one file from `start` on, at most FILE_PIECE_BYTES; none at its end."""

    def rows(self, rows: Sequence[int]) -> Rows:
        """Return the features of these rows, (n, ...)."""


class Lender:
    """The source itself, on the machine that has the workplace."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def listing(self) -> Listing:
        """Return what there is. Raises RunError where nothing is prepared."""
        found = self._features
        form = None
        if found is not None:
            key, features = found
            form = FeatureForm(key, tuple(features.shape), str(features.numpy().dtype))
        there = [name for name in FILES if (self._folder / name).exists()]
        return Listing({name: _hash_of(self._folder / name) for name in there}, form, package_code())

    def piece(self, name: str, start: int) -> bytes:
        """Return the bytes of one file from `start` on. Raises RunError where it is not there."""
        try:
            with (self._folder / Path(name).name).open("rb") as file:
                file.seek(start)
                return file.read(FILE_PIECE_BYTES)
        except OSError as error:
            raise RunError(f"{self._folder / name} cannot be read: {error.strerror or error}") from error

    def rows(self, rows: Sequence[int]) -> Rows:
        """Return the features of these rows."""
        if self._features is None:
            raise RunError(f"{self._folder} has no features")
        found: Rows = np.ascontiguousarray(self._features[1].numpy()[np.asarray(rows)])
        return found

    @cached_property
    def _features(self) -> tuple[str, Tensor] | None:
        try:
            manifest = json.loads((self._folder / MANIFEST).read_text())
            config = RunConfig.from_json((self._folder / "config.json").read_text())
        except (OSError, ValueError) as error:
            raise RunError(f"no prepared workplace in {self._folder}") from error
        if config.compute.features == "off":
            return None
        store = FeatureStore(self._folder / manifest["store"])
        found = store.find(manifest["features"])
        if found is None:
            raise RunError(f"the features of this run are gone from {store.folder}; go on with --resume")
        return manifest["features"], found


def node_folder() -> Path:
    """Return where this machine keeps what comes from afar."""
    own = os.environ.get(NODE_DIR)
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return Path(own) if own else cache / "fed_asi" / "from_afar"


def open_afar(source: Source, seen: Path) -> Workplace:
    """Return a workplace whose folder this machine may not see, for devices to work in.

    seen: where the folder would be; it is taken as it is where every file in it is the source's. The images that the
    server judges by are left where they are: its test features are empty.
    Raises RunError where something does not come, or cannot be kept here.
    """
    listing = source.listing()
    near = _holds(seen, listing)
    folder = seen if near else _fetched(source, listing)
    features = Features({}, {"test": torch.empty(0)})
    if listing.features is not None:
        features = _features(folder, listing.features, source, near)
    return open_workplace(folder, features=features, fetch=None if near else partial(_fetch, source, folder))


def _features(folder: Path, form: FeatureForm, source: Source, near: bool) -> Features:
    """Return the features of the training images, whole from a store of this machine or row by row from the source."""
    none, stores = torch.empty(0), [folder / store_path()]
    if near:
        stores.insert(0, folder / json.loads((folder / MANIFEST).read_text())["store"])
    whole = next((one for store in stores if (one := _found(store, form.key)) is not None), None)
    if whole is not None:
        return Features({}, {"test": none, "train": whole})
    limit = RunConfig.from_json((folder / "config.json").read_text()).compute.features_limit
    rows = FeatureRows(FeatureStore(stores[-1], limit), form, source.rows)
    return Features({}, {"test": none, "train": rows.features}, rows.bring)


def _found(store: Path, key: str) -> Tensor | None:
    """Return a whole entry of a store that this machine may not see."""
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
                    raise RunError(f"{name} came to {folder} otherwise than it was sent; start again")
    return folder


def _fetch(source: Source, folder: Path, name: str) -> None:
    """Bring one file, whole."""
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
