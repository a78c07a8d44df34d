"""A run's folder: one writer at a time, and a unique name."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from fed_asi.errors import RunError
from fed_asi.results.lock import RunLock, is_locked, new_folder


def test_one_process_at_a_time_writes(tmp_path):
    assert not is_locked(tmp_path)
    lock = RunLock.take(tmp_path)
    assert is_locked(tmp_path)
    with pytest.raises(RunError, match="is being written by another process: wait, or stop it"):
        RunLock.take(tmp_path)
    lock.release()
    lock.release()  # twice is harmless
    assert not is_locked(tmp_path)
    RunLock.take(tmp_path).release()


def test_somebody_who_only_looks_is_in_nobodys_way(tmp_path):
    lock = RunLock.take(tmp_path)
    for _ in range(3):
        assert is_locked(tmp_path)
    lock.release()
    assert not is_locked(tmp_path / "nowhere")


def test_the_lock_ends_with_its_process(tmp_path):
    code = "import os, sys, pathlib; from fed_asi.results.lock import RunLock\n"
    code += "RunLock.take(pathlib.Path(sys.argv[1])); os.kill(os.getpid(), 9)"
    assert subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False).returncode == -9
    assert not is_locked(tmp_path)


def test_a_name_that_is_taken_gets_a_number(tmp_path):
    assert [new_folder(tmp_path / "runs", "x").name for _ in range(3)] == ["x", "x-2", "x-3"]


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    with pytest.raises(RunError, match=r"cannot make .*file/x: .*file is not a folder"):
        new_folder(tmp_path / "file", "x")

    def refuse(*_args: object, **_named: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "mkdir", refuse)  # the tests may run as root, who may write anywhere
    with pytest.raises(RunError, match=r"cannot make .*x: Permission denied"):
        new_folder(tmp_path, "x")
