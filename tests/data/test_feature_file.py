"""One entry of the feature store: written in pieces, continued after a kill, complete under its name or absent."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from fed_asi.data.feature_file import PartFile, read_header

FEATURES = np.arange(7 * 3, dtype=np.float32).reshape(7, 3)
ABOUT = {"version": 1}


def part(folder: Path, shape: tuple[int, ...] = FEATURES.shape, group_size: int = 3) -> PartFile:
    return PartFile(folder / "part", shape, FEATURES.dtype, group_size)


def test_groups_may_come_in_any_order_and_the_file_is_an_npy(tmp_path: Path) -> None:
    with part(tmp_path) as file:
        assert [file.rows(group) for group in range(file.groups)] == [3, 3, 1]
        for group in (2, 0, 1):
            file.write(group, FEATURES[group * 3 : group * 3 + 3])
        assert not file.missing()
        file.finish(ABOUT, tmp_path / "final")
    assert np.array_equal(np.load(tmp_path / "final" / "features.npy"), FEATURES)
    assert json.loads((tmp_path / "final" / "about.json").read_text()) == ABOUT
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["about.json", "features.npy", "final"]


def test_what_was_written_before_a_kill_is_not_written_again(tmp_path: Path) -> None:
    with part(tmp_path) as file:
        file.write(1, FEATURES[3:6])
    with part(tmp_path) as file:
        assert file.missing() == [0, 2]


def test_a_group_whose_bytes_changed_is_missing_again(tmp_path: Path) -> None:
    with part(tmp_path) as file:
        file.write(0, FEATURES[:3])
    path = tmp_path / "part" / "features.npy"
    content = bytearray(path.read_bytes())
    with path.open("rb") as opened:
        offset = read_header(opened)[2]
    content[offset] ^= 1
    path.write_bytes(content)
    with part(tmp_path) as file:
        assert file.missing() == [0, 1, 2]


def test_a_part_of_another_shape_is_begun_anew(tmp_path: Path) -> None:
    with part(tmp_path) as file:
        file.write(0, FEATURES[:3])
    with part(tmp_path, shape=(7, 4)) as file:
        assert file.missing() == [0, 1, 2]


def test_a_group_of_another_size_is_an_error(tmp_path: Path) -> None:
    with part(tmp_path) as file, pytest.raises(ValueError, match="group 2 has 36 bytes, expected 12"):
        file.write(2, FEATURES[:3])


def test_a_cut_off_file_is_said_to_be_damaged(tmp_path: Path) -> None:
    path = tmp_path / "x.npy"
    np.save(path, FEATURES)
    path.write_bytes(path.read_bytes()[:-1])
    with path.open("rb") as file, pytest.raises(ValueError, match="size does not match its header"):
        read_header(file)
