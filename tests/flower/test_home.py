"""A run's folder with files of devices at work, whatever they contain."""

from __future__ import annotations

from pathlib import Path

from fed_asi.flower.home import HomeFolder, begun_file, clear_word, word_left
from runs import job


def test_word_is_left_changed_and_taken_away(tmp_path: Path) -> None:
    home = HomeFolder(tmp_path / "devices")
    home.begin(job())
    assert word_left(home.folder, job()) == ""
    assert word_left(home.folder, job(round=2)) is None
    home.late(job())
    assert word_left(home.folder, job()) == "late"
    home.clear(job())
    assert word_left(home.folder, job()) is None


def test_what_a_device_wrote_is_no_error_whatever_it_is(tmp_path: Path) -> None:
    path = begun_file(tmp_path, job())
    for content in (b"\xff\xfe", b"late" * 10**6, b"\0"):
        path.write_bytes(content)
        assert word_left(tmp_path, job()) not in {None, "late"}
    clear_word(tmp_path, job())
    assert not path.exists()
    path.mkdir()
    assert word_left(tmp_path, job()) is None
    clear_word(tmp_path, job())
    clear_word(tmp_path / "no such folder", job())
