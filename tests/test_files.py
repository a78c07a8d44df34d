"""Files that are complete or absent."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from fed_asi.errors import RunError
from fed_asi.files import check_writable, pack, read_tensors, unpack, write_file, write_tensors, write_text


def test_a_file_takes_its_name_when_it_is_whole(tmp_path):
    path = tmp_path / "new" / "folder" / "file"
    write_file(path, b"first")
    write_file(path, b"second", sync=False)
    assert path.read_bytes() == b"second"
    assert [found.name for found in path.parent.iterdir()] == ["file"]


def test_a_write_that_fails_leaves_what_was_there(tmp_path, monkeypatch):
    path = tmp_path / "file"
    write_file(path, b"first")

    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(RunError, match=r"cannot write .*file: No space left on device; what was"):
        write_file(path, b"second")
    assert path.read_bytes() == b"first"
    assert [found.name for found in tmp_path.iterdir()] == ["file"]


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(RunError, match="cannot write"):
        write_file(tmp_path / "file" / "below", b"x")


def test_tensors_come_back_as_they_went(tmp_path):
    whole = torch.arange(12.0).reshape(3, 4)
    written = {"a": whole[1], "b": torch.tensor([1, 2]), "c": torch.zeros(0)}
    write_tensors(tmp_path / "t", written)
    found = read_tensors(tmp_path / "t")
    assert list(found) == ["a", "b", "c"]
    assert all(torch.equal(found[name], tensor) for name, tensor in written.items())
    assert found["a"].untyped_storage().nbytes() == 16  # a view is written without the rest of its storage


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "no file"),
        (b"not a file of ours", "is corrupt"),
        (pack({"version": 9}), "is of version 9; this program reads 1"),
    ],
)
def test_what_cannot_be_read_is_one_line(tmp_path: Path, content, said):
    if content is not None:
        (tmp_path / "file").write_bytes(content)
    with pytest.raises(RunError, match=said) as raised:
        unpack(tmp_path / "file")
    assert len(str(raised.value).splitlines()) == 1


def test_half_a_file_is_corrupt(tmp_path):
    content = pack({"tensors": {"a": torch.zeros(100)}})
    (tmp_path / "file").write_bytes(content[: len(content) // 2])
    with pytest.raises(RunError, match="is corrupt"):
        unpack(tmp_path / "file")


def test_a_users_file_gets_its_folder(tmp_path):
    write_text(tmp_path / "new" / "folder" / "ä.txt", "→")
    assert (tmp_path / "new" / "folder" / "ä.txt").read_bytes() == "→".encode()


def test_whatever_hinders_a_users_file_is_one_line(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    for path, problem in (
        (tmp_path / "file" / "a" / "b.txt", f"{tmp_path / 'file'} is not a folder"),
        (tmp_path, "it is a folder"),
        (tmp_path / ("x" * 300), "File name too long"),
    ):
        with pytest.raises(RunError) as raised:
            write_text(path, "")
        assert str(raised.value) == f"cannot write {path}: {problem}"
    monkeypatch.setattr(os, "access", lambda _path, _mode: False)  # root may write anywhere
    with pytest.raises(RunError, match=r"cannot write .*new: Permission denied"):
        check_writable(tmp_path / "new")


def test_a_synced_files_name_is_synced_too(tmp_path, monkeypatch):
    synced = []
    monkeypatch.setattr(
        os, "fsync", lambda descriptor: synced.append(Path(f"/proc/self/fd/{descriptor}").is_dir())
    )
    write_file(tmp_path / "file", b"x")
    assert synced == [False, True]
    write_file(tmp_path / "file", b"x", sync=False)
    assert len(synced) == 2


def test_a_changed_bit_is_found(tmp_path):
    write_tensors(tmp_path / "file", {"w": torch.zeros(1000)})
    content = bytearray((tmp_path / "file").read_bytes())
    content[len(content) // 2] ^= 1
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(RunError, match="corrupt: the checksum of"):
        read_tensors(tmp_path / "file")
