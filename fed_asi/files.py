"""Files that are there whole or not at all, also after a power cut; named tensors among them."""

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
    """Write a file so that it is there whole or not at all; with sync, also after a power cut.

    Raises RunError, one line, where the disk is full or the folder cannot be written.
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
    """Make the names in a folder outlive a power cut, where the system can do that."""
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def check_writable(path: Path) -> None:
    """Make the folder of a file that is to be written. Raises RunError, one line, where it cannot be written there."""
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_dir():
            raise IsADirectoryError
        if not os.access(path if path.exists() else path.parent, os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn what the file system says to writing a file into one RunError that names it."""
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
    """Give a file to fill, of any length, which takes its place once the block has ended well.

    Raises RunError, one line, where it cannot be written there.
    """
    check_writable(path)
    with writing(path), tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as folder:
        beside = Path(folder) / "file"
        with beside.open("wb") as file:
            yield file
        beside.replace(path)


def write_text(path: Path, text: str) -> None:
    """Write a user's file, its folder too where it is not there. Raises RunError, one line, where it cannot be."""
    check_writable(path)
    with writing(path):
        path.write_text(text, encoding="utf-8")


def round_file(folder: Path, round: int) -> Path:
    """Return where what belongs to a round is kept in a folder."""
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
    """Return what `pack` made, from what a file or a record of that name holds. Raises RunError as `unpack` does."""
    try:
        held = io.BytesIO(packed)
        with zipfile.ZipFile(held) as parts:  # torch does not look at its checksums
            damaged = parts.testzip()
        if damaged is not None:
            raise ValueError(f"the checksum of {damaged} does not match")
        held.seek(0)
        content = torch.load(held, weights_only=True)
    except Exception as error:  # of any kind: torch, pickle and zip name what is corrupt in their own ways
        raise RunError(f"{name} is corrupt: {first_line(error)}") from error
    if not isinstance(content, dict) or content.get("version") != VERSION:
        found = content.get("version") if isinstance(content, dict) else None
        raise RunError(f"{name} is of version {found}; this program reads {VERSION}")
    return content


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write named tensors as one file, whole or not at all. Raises RunError where it cannot be written."""
    write_file(path, pack({"tensors": {name: tensor.detach().clone() for name, tensor in tensors.items()}}))


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Return the named tensors of a file. Raises RunError where it is missing, corrupt or newer."""
    return dict(unpack(path)["tensors"])
