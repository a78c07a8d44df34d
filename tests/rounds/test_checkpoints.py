from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
import torch

from fed_asi import files
from fed_asi.errors import RunError
from fed_asi.rounds import checkpoints
from fed_asi.rounds.checkpoints import Checkpoint


def at(round: int, value: float = 1.0) -> Checkpoint:
    return Checkpoint(round, "print", {"head.weight": torch.full((2, 3), value), "head.bias": torch.zeros(2)})


def test_round_trip_to_the_bit(tmp_path: Path) -> None:
    tensors = {"w": torch.randn(5, 3, generator=torch.Generator().manual_seed(0))}
    checkpoints.save(tmp_path, Checkpoint(4, "print", tensors))
    back = checkpoints.load(tmp_path, 4, "print")
    assert back.round == 4
    assert torch.equal(back.tensors["w"], tensors["w"])


def test_only_the_last_two_stay(tmp_path: Path) -> None:
    for round in range(5):
        checkpoints.save(tmp_path, at(round))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["round-000003.pt", "round-000004.pt"]


def test_a_round_done_again_replaces_its_file(tmp_path: Path) -> None:
    for round in (7, 8):
        checkpoints.save(tmp_path, at(round))
    checkpoints.save(tmp_path, at(7, 2.0))
    assert checkpoints.load(tmp_path, 7, "print").tensors["head.weight"][0, 0] == 2.0


def test_what_cannot_be_loaded_is_named(tmp_path: Path) -> None:
    checkpoints.save(tmp_path, at(1))
    with pytest.raises(RunError, match="no file"):
        checkpoints.load(tmp_path, 2, "print")
    with pytest.raises(RunError, match="other settings"):
        checkpoints.load(tmp_path, 1, "another")
    path = tmp_path / "round-000001.pt"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(RunError, match="corrupt"):
        checkpoints.load(tmp_path, 1, "print")
    torch.save({"version": 99}, path)
    with pytest.raises(RunError, match="version 99"):
        checkpoints.load(tmp_path, 1, "print")


def test_full_disk_is_one_line_and_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    files.write_file(path, b"old")

    def full(_descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(RunError, match=r"cannot write .*: No space left on device") as caught:
        files.write_file(path, b"new")
    assert "\n" not in str(caught.value)
    assert [p.name for p in tmp_path.iterdir()] == ["file"]
    assert path.read_bytes() == b"old"


def test_folder_under_a_file_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("a file, not a folder")
    with pytest.raises(RunError, match="cannot write"):
        checkpoints.save(tmp_path / "runs" / "checkpoints", at(0))
