"""Features that arrive row by row: each once per machine, unchanged, and only those that are needed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fed_asi.data import feature_rows
from fed_asi.data.feature_rows import FeatureForm, FeatureRows
from fed_asi.data.features import FeatureStore
from fed_asi.errors import ConfigError, RunError

WHOLE = np.arange(40 * 6, dtype=np.float32).reshape(40, 2, 3)
FORM = FeatureForm("key", WHOLE.shape, "float32")


class There:
    """The other machine. asked: which rows it was asked for, call by call."""

    def __init__(self) -> None:
        self.asked: list[list[int]] = []

    def __call__(self, rows: Sequence[int]) -> Any:
        self.asked.append(list(rows))
        return WHOLE[np.asarray(rows)]


Open = Callable[..., FeatureRows]


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Open]:
    """Opens the store's rows as a process does, and lets go of them in the end."""
    all_of_them: list[FeatureRows] = []

    def one(fetch: Any, limit: int | None = None) -> FeatureRows:
        all_of_them.append(FeatureRows(FeatureStore(tmp_path / "store", limit), FORM, fetch))
        return all_of_them[-1]

    yield one
    for found in all_of_them:
        found.close()


def bring(found: FeatureRows, *rows: int) -> torch.Tensor:
    found.bring(torch.tensor(rows))
    return found.features[torch.tensor(rows)]


def test_a_row_comes_once_to_a_machine_whoever_needs_it(opened: Open) -> None:
    there = There()
    first, second = opened(there), opened(there)
    assert np.array_equal(bring(first, 7, 3, 7).numpy(), WHOLE[[7, 3, 7]])
    assert np.array_equal(bring(second, 3, 9).numpy(), WHOLE[[3, 9]])
    assert np.array_equal(first.features[9].numpy(), WHOLE[9])  # the same memory
    bring(first, 9, 3)
    assert there.asked == [[3, 7], [9]]


def test_many_rows_come_in_pieces(opened: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feature_rows, "PIECE_BYTES", 3 * FORM.row_bytes)
    there = There()
    assert np.array_equal(bring(opened(there), *range(40)).numpy(), WHOLE)
    assert [len(rows) for rows in there.asked] == [3] * 13 + [1]


def test_a_row_whose_bytes_changed_comes_again(opened: Open, tmp_path: Path) -> None:
    bring(opened(There()), 5, 6)
    path = tmp_path / "store" / "key.rows" / "features.npy"
    content = bytearray(path.read_bytes())
    content[len(content) - (40 - 6) * FORM.row_bytes] ^= 1  # the first byte of row 6
    path.write_bytes(content)
    there = There()
    assert np.array_equal(bring(opened(there), 5, 6).numpy(), WHOLE[[5, 6]])
    assert there.asked == [[6]]


def test_what_does_not_come_is_not_there(opened: Open) -> None:
    def fails(rows: Sequence[int]) -> Any:
        raise RunError("the server's machine does not answer")

    broken = opened(fails)
    with pytest.raises(RunError, match="does not answer"):
        bring(broken, 1)
    there = There()
    assert np.array_equal(bring(opened(there), 1).numpy(), WHOLE[[1]])
    assert there.asked == [[1]]


@pytest.mark.parametrize("sent", [WHOLE[:1], WHOLE[:2].astype(np.float64), WHOLE[:2, :1]])
def test_what_comes_otherwise_is_refused(opened: Open, sent: Any) -> None:
    with pytest.raises(RunError, match=r"^2 rows of features came as .* not as "):
        bring(opened(lambda _rows: sent), 1, 2)


def test_a_store_with_no_room_says_so_before_anything_comes(opened: Open, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="do not fit the store's limit"):
        opened(There(), limit=40 * FORM.row_bytes - 1)
    assert list((tmp_path / "store").glob("*/features.npy")) == []


def test_what_is_discarded_goes_once_nobody_has_it_open(opened: Open, tmp_path: Path) -> None:
    first, second = opened(There()), opened(There())
    bring(first, 1)
    first.discard()
    assert np.array_equal(bring(second, 1, 2).numpy(), WHOLE[[1, 2]])
    assert (tmp_path / "store" / "key.rows").is_dir()
    second.discard()
    assert not (tmp_path / "store" / "key.rows").exists()


def test_whoever_trusts_marks_takes_what_is_there_and_waits_for_nobody(opened: Open, tmp_path: Path) -> None:
    """Another process is at work on other rows meanwhile."""
    bring(opened(There()), 4)
    there, store = There(), FeatureStore(tmp_path / "store")
    with store.building("key.rows"):
        trusting = FeatureRows(store, FORM, there, trusting=True)
        assert np.array_equal(bring(trusting, 4).numpy(), WHOLE[[4]])
    assert np.array_equal(bring(trusting, 4, 5).numpy(), WHOLE[[4, 5]])
    assert there.asked == [[5]]
    trusting.close()


def test_what_is_open_is_not_evicted_and_what_is_not_makes_room(opened: Open, tmp_path: Path) -> None:
    found = opened(There())
    bring(found, 1)
    store = FeatureStore(tmp_path / "store", 41 * FORM.row_bytes)
    with pytest.raises(ConfigError, match="in use"):
        store.make_room("other", 40 * FORM.row_bytes)
    assert np.array_equal(bring(found, 1).numpy(), WHOLE[[1]])
