"""The features of a frozen trunk, computed once and shared by all processes: a store of memory-mapped arrays.

The address of an entry is a hash of everything that determines its numbers: the trunk's code, layers and weights, the
images, their resolution and normalisation, the number format, torch's version, and the engine or device if it is not
torch on the CPU. Images go through the trunk in fixed groups, one thread per group, so the bits depend neither on the
number of workers nor on where a build was resumed.

    KEY.lock   held by the one process that builds; the others wait, and a killed process releases it
    KEY.turn   held by the one that builds next, so that a process that builds again and again lets others in
    KEY.part/  an unfinished entry: features.npy, and the checksum of every finished group
    KEY/       a finished entry: features.npy and about.json, whose modification time is the time of its last use
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import fx

from fed_asi.data.engines import OnnxRuntime
from fed_asi.data.feature_file import PartFile, read_header
from fed_asi.data.images import Images, Rows, to_batch
from fed_asi.errors import ConfigError, RunError
from fed_asi.gpus import CPU, device_of, sent
from fed_asi.units import format_bytes

VERSION: Final = 2
GROUP: Final = 32  # images; 16 to 32 is fastest when each core works on its own group
DTYPES: Final = {"float32": np.dtype(np.float32), "float16": np.dtype(np.float16)}
Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class FeatureSource:
    """What features are computed from.

    trunk: as `models.split.cut` returns it, on the device that computes. images: (N, H, W, 3) uint8. fingerprint: of
    the images. resolution, mean, std: how `data.images.to_batch` prepares them. dtype: "float32" or "float16".
    engine: computes the trunk in place of torch.
    """

    trunk: fx.GraphModule
    images: Images
    fingerprint: str
    resolution: int
    mean: Sequence[float]
    std: Sequence[float]
    dtype: str = "float32"
    engine: OnnxRuntime | None = None

    def about(self) -> dict[str, Any]:
        """Return everything that the features' numbers depend on, as JSON values.

        Raises ConfigError for an unknown dtype.
        """
        if self.dtype not in DTYPES:
            raise ConfigError(f"features are kept as {' or '.join(DTYPES)}, not {self.dtype!r}")
        return {
            "version": VERSION,
            "trunk": trunk_fingerprint(self.trunk),
            "data": self.fingerprint,
            "images": len(self.images),
            "resolution": self.resolution,
            "mean": [float(value) for value in self.mean],
            "std": [float(value) for value in self.std],
            "dtype": self.dtype,
            "torch": torch.__version__,
        } | self._where

    @property
    def _where(self) -> dict[str, str]:
        """What computes the trunk, if it is not torch on the CPU; empty otherwise."""
        if self.engine is not None:
            return {"engine": self.engine.about}
        return {} if self.device == CPU else {"device": self.device.type}

    @property
    def device(self) -> torch.device:
        """The device that computes the trunk; it affects the last bits."""
        return device_of(self.trunk)

    def compute(self, group: int) -> NDArray[np.floating]:
        """Return the features of one group of images, (GROUP or fewer, ...)."""
        return self.computed(slice(group * GROUP, (group + 1) * GROUP))

    def computed(self, rows: Rows) -> NDArray[np.floating]:
        """Return the features of some images that go through the trunk together, (n, ...)."""
        images = self.images[rows]
        computed: Callable[[torch.Tensor], Any] = self.engine or self.trunk
        with torch.inference_mode():
            batch = to_batch(images, self.resolution, self.mean, self.std)
            features = computed(sent(batch, self.device)).cpu()
        return np.ascontiguousarray(features.numpy().astype(DTYPES[self.dtype]))


def trunk_fingerprint(trunk: fx.GraphModule) -> str:
    """Return a hash of the trunk's code, its layers' settings and its weights."""
    digest = hashlib.sha256(f"{trunk.code}\n{trunk}".encode())
    for name, value in trunk.state_dict().items():
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def key_of(source: FeatureSource) -> str:
    """Return the address of the features of a source, the same in every store."""
    return hashlib.sha256(json.dumps(source.about(), sort_keys=True).encode()).hexdigest()[:32]


class FeatureStore:
    """Features kept in a folder that any number of processes share.

    limit_bytes: for all entries together; None: no limit. The least recently used entries are evicted first, but never
    one that a process has open.
    """

    def __init__(self, folder: Path, limit_bytes: int | None = None) -> None:
        self.folder = Path(folder)
        self.limit_bytes = limit_bytes

    def features(
        self, source: FeatureSource, *, workers: int | None = None, progress: Progress | None = None
    ) -> torch.Tensor:
        """Return the features of all images, (N, ...), memory-mapped; they are computed now if the store has none.

        workers: number of threads, by default one per core. progress: called with (images done, images).
        Raises ConfigError if the entry exceeds the limit, RunError if the folder or the disk refuses it.
        """
        about = source.about()
        key = key_of(source)
        with self.named():
            self.folder.mkdir(parents=True, exist_ok=True)
            while (found := self._open(key)) is None:
                with self.building(key):
                    if not (self.folder / key).is_dir():
                        self._build(key, about, source, workers, progress)
        return found

    def find(self, key: str) -> torch.Tensor | None:
        """Return the finished entry of a key from `key_of`, memory-mapped; None if there is none.

        Raises RunError if the folder cannot be read.
        """
        with self.named():
            return self._open(key)

    @contextmanager
    def named(self) -> Iterator[None]:
        """Turn an error of the file system into a RunError of one line that names the store."""
        try:
            yield
        except OSError as error:
            raise RunError(f"the feature store in {self.folder} failed: {error.strerror or error}") from error

    def entries(self) -> dict[str, int]:
        """Return the bytes of each entry, finished or not, the least recently used first."""
        found = {}
        for path in self.folder.glob("*/features.npy"):
            about = path.parent / "about.json"
            with contextlib.suppress(FileNotFoundError):  # it has just got another name, or is gone
                used = (about if about.exists() else path).stat().st_mtime_ns
                found[path.parent.name] = (used, path.stat().st_size)
        return {name: found[name][1] for name in sorted(found, key=lambda name: found[name])}

    def _open(self, key: str) -> torch.Tensor | None:
        """Return a finished entry, protected from eviction while the tensor lives; None if there is none."""
        path = self.folder / key / "features.npy"
        try:
            with path.open("rb") as file:
                # The mapping duplicates the descriptor, and so keeps holding the lock.
                fcntl.flock(file, fcntl.LOCK_SH)
                if os.fstat(file.fileno()).st_nlink == 0:
                    return None  # evicted between open and lock
                shape, dtype, offset = read_header(file)
                # Copy-on-write: torch expects writable memory, but the file must never change.
                array = np.memmap(file, dtype=dtype, mode="c", offset=offset, shape=shape)
            with contextlib.suppress(OSError):  # a process may have read access only
                os.utime(path.parent / "about.json")
        except FileNotFoundError:
            return None
        except ValueError:  # a damaged file: remove the entry
            shutil.rmtree(path.parent)
            return None
        return torch.from_numpy(array)

    @contextmanager
    def building(self, key: str) -> Iterator[None]:
        """Hold the lock for building an entry inside the block; other processes wait for it."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / f"{key}.lock").open("w") as lock:
            with (self.folder / f"{key}.turn").open("w") as turn:
                fcntl.flock(turn, fcntl.LOCK_EX)
                fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _build(
        self,
        key: str,
        about: dict[str, Any],
        source: FeatureSource,
        workers: int | None,
        progress: Progress | None,
    ) -> None:
        threads = torch.get_num_threads()
        try:
            torch.set_num_threads(1)
            first = source.compute(0)
            shape = (len(source.images), *first.shape[1:])
            self.make_room(key, first[:1].nbytes * shape[0])
            with PartFile(self.folder / f"{key}.part", shape, first.dtype, GROUP) as part:
                _fill(part, source, workers or _cores(), progress)
        finally:
            torch.set_num_threads(threads)
        part.finish(about, self.folder / key)

    def make_room(self, key: str, needed: int) -> None:
        """Evict the least recently used entries until an entry of `needed` bytes fits.

        Raises ConfigError if it cannot fit.
        """
        if self.limit_bytes is None:
            return
        kept = {name: size for name, size in self.entries().items() if name.partition(".")[0] != key}
        for name in list(kept):
            if sum(kept.values()) + needed > self.limit_bytes and self.evict(name):
                del kept[name]
        if sum(kept.values()) + needed > self.limit_bytes:
            raise ConfigError(
                f"features of {format_bytes(needed)} do not fit the store's limit of "
                f"{format_bytes(self.limit_bytes)} ({format_bytes(sum(kept.values()))} in use); "
                "raise the limit, keep them as float16, or lower the resolution"
            )

    def evict(self, name: str) -> bool:
        """Return whether the entry was removed; one that a process builds or has open stays."""
        path = self.folder / name
        unfinished = path.suffix == ".part"
        guard, mode = (path.with_suffix(".lock"), "ab") if unfinished else (path / "features.npy", "rb")
        try:
            with guard.open(mode) as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                (path / "features.npy").unlink(missing_ok=True)
                shutil.rmtree(path)
        except BlockingIOError:
            return False
        except FileNotFoundError:  # another process removed it first
            return True
        return True


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _fill(part: PartFile, source: FeatureSource, workers: int, progress: Progress | None) -> None:
    missing = part.missing()
    total = len(source.images)
    done = total - sum(part.rows(group) for group in missing)

    def work(group: int) -> int:
        part.write(group, source.compute(group))
        return part.rows(group)

    pool = ThreadPoolExecutor(workers, "features", torch.set_num_threads, (1,))
    try:
        for finished in as_completed([pool.submit(work, group) for group in missing]):
            done += finished.result()
            if progress is not None:
                progress(done, total)
    finally:
        pool.shutdown(cancel_futures=True)
