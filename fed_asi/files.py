"""Files written atomically, so that a power cut leaves the old file or the new one; named tensors in files."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor

from fed_asi.errors import RunError, first_line

VERSION = 1


def write_file(path: Path, content: bytes, *, sync: bool = True) -> None:
    """Write a file atomically: it is seen whole or not at all, with `sync` also after a power cut.

    Raises RunError where the disk is full or the folder is not writable.
    """
    temporary: str | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            if sync:
                os.fsync(file.fileno())
        Path(temporary).replace(path)
        if sync:
            _sync_folder(path.parent)
    except OSError as error:
        if temporary is not None:
            with contextlib.suppress(OSError):
                Path(temporary).unlink()
        raise RunError(f"cannot write {path}: {error.strerror}; what was recorded so far is kept") from error


def _sync_folder(folder: Path) -> None:
    """Make a folder's entries survive a power cut, where the system supports it."""
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def check_writable(path: Path) -> None:
    """Create the folder of a file to be written. Raises RunError where nothing can be written there."""
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_dir():
            raise IsADirectoryError
        if not os.access(path if path.exists() else path.parent, os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn a file-system error inside the block into one RunError that names the file."""
    try:
        yield
    except (FileExistsError, NotADirectoryError) as error:
        folder = next((one for one in path.parents if one.exists()), path.parent)
        raise RunError(f"cannot write {path}: {folder} is not a folder") from error
    except IsADirectoryError as error:
        raise RunError(f"cannot write {path}: it is a folder") from error
    except OSError as error:
        raise RunError(f"cannot write {path}: {error.strerror or error}") from error


@contextmanager
def replacing(path: Path) -> Iterator[IO[bytes]]:
    """Yield an open file, of any length, that replaces `path` when the block ends without an error.

    Raises RunError where it cannot be written.
    """
    check_writable(path)
    with writing(path), tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as folder:
        beside = Path(folder) / "file"
        with beside.open("wb") as file:
            yield file
        beside.replace(path)


def write_text(path: Path, text: str) -> None:
    """Write a text file for the user, creating its folder. Raises RunError where it cannot be written."""
    check_writable(path)
    with writing(path):
        path.write_text(text, encoding="utf-8")


def round_file(folder: Path, round: int) -> Path:
    """Return the path of a round's file in a folder."""
    return folder / f"round-{round:06d}.pt"


def pack(content: dict[str, Any]) -> bytes:
    """Return plain values and tensors as the bytes of a versioned file."""
    buffer = io.BytesIO()
    torch.save({"version": VERSION, **content}, buffer)
    return buffer.getvalue()


def unpack(path: Path) -> dict[str, Any]:
    """Return what `pack` made. Raises RunError for a file that is missing, corrupt or of another version."""
    try:
        return unpack_bytes(path.read_bytes(), str(path))
    except FileNotFoundError:
        raise RunError(f"no file {path}") from None
    except OSError as error:
        raise RunError(f"{path} is corrupt: {first_line(error)}") from error


def unpack_bytes(packed: bytes, name: str) -> dict[str, Any]:
    """Return what `pack` made, from its bytes. name: what errors call them. Raises RunError as `unpack` does."""
    try:
        held = io.BytesIO(packed)
        with zipfile.ZipFile(held) as parts:  # torch does not look at its checksums
            damaged = parts.testzip()
        if damaged is not None:
            raise ValueError(f"the checksum of {damaged} does not match")
        held.seek(0)
        content = torch.load(held, weights_only=True)
    except Exception as error:  # torch, pickle and zip each raise errors of their own for corrupt data
        raise RunError(f"{name} is corrupt: {first_line(error)}") from error
    if not isinstance(content, dict) or content.get("version") != VERSION:
        found = content.get("version") if isinstance(content, dict) else None
        raise RunError(f"{name} is of version {found}; this program reads {VERSION}")
    return content


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write named tensors to one file, atomically. Raises RunError where it cannot be written."""
    write_file(path, pack({"tensors": {name: tensor.detach().clone() for name, tensor in tensors.items()}}))


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Return the named tensors of a file. Raises RunError where it is missing, corrupt or of a newer version."""
    return dict(unpack(path)["tensors"])
