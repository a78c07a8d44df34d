"""Rows that are computed by need: the bits of the whole entry, none that nobody needs, those asked for first."""

from __future__ import annotations

import errno
import os
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import fx, nn

from fed_asi import models
from fed_asi.compression import cut
from fed_asi.compression.tune import tune_last_
from fed_asi.data import feature_file
from fed_asi.data.feature_rows import form_of_rows, name_of_rows, rows_are_there
from fed_asi.data.features import GROUP, FeatureSource, FeatureStore, key_of
from fed_asi.data.images import Rows, UInt8Images
from fed_asi.data.rows_ahead import Computing, Numbers, RowsAhead, RowsByNeed, form_of, takes_any_order
from fed_asi.errors import ConfigError, MissingDataError, RunError

HALF = (0.5, 0.5, 0.5)
COUNT = 3 * GROUP + 7  # the last group is smaller


class Watched:
    """Images that say which rows were read. before: is called with them before they are."""

    def __init__(self, count: int = COUNT, before: Callable[[Numbers], None] = lambda _rows: None) -> None:
        self.images = np.random.default_rng(0).integers(0, 256, (count, 32, 32, 3), dtype=np.uint8)
        self.read: list[Numbers] = []
        self.before = before

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, rows: Rows, /) -> UInt8Images:
        numbers = np.arange(len(self.images))[rows]
        self.before(numbers)
        self.read.append(numbers)
        return self.images[rows]

    @property
    def ever(self) -> set[int]:
        return {int(row) for rows in self.read for row in rows}


def trunk_of(name: str, resolution: int, layers: int) -> fx.GraphModule:
    model = models.build(name, 10, resolution=resolution, seed=0).eval()
    trunk, _ = cut.cut(model, tune_last_(model, layers), torch.zeros(1, 3, resolution, resolution))
    return cut.folded(trunk)


@pytest.fixture(scope="module")
def trunk() -> fx.GraphModule:
    return trunk_of("tiny", 32, 2)


@pytest.fixture(scope="module")
def whole(trunk: fx.GraphModule, tmp_path_factory: pytest.TempPathFactory) -> torch.Tensor:
    """All features, made in the images' own order."""
    return FeatureStore(tmp_path_factory.mktemp("whole")).features(source_of(trunk, Watched()))


def source_of(trunk: fx.GraphModule, images: Watched, resolution: int = 32) -> FeatureSource:
    return FeatureSource(trunk, images, "a", resolution, HALF, HALF)


Open = Callable[..., RowsByNeed]


@pytest.fixture
def begun(tmp_path: Path) -> Iterator[Open]:
    """Begins to compute rows in this order, and ends it at last. beside: rows that are computed in the same thread."""
    every: list[RowsAhead] = []

    def one(
        source: FeatureSource,
        *order: int,
        workers: int = 1,
        limit: int | None = None,
        beside: RowsByNeed | None = None,
    ) -> RowsByNeed:
        store, computing = FeatureStore(tmp_path, limit), Computing(lambda: source, workers)
        every.append(RowsAhead() if beside is None else beside.ahead)
        return every[-1].add(store, form_of(source), computing, np.array(order, dtype=np.int64))

    yield one
    for ahead in every:
        ahead.close()


@pytest.mark.few(2)
@pytest.mark.parametrize(
    ("name", "resolution", "layers"),
    [("tiny", 32, 2), ("mcunet-in1", 48, 4), ("mobilenet_v2", 32, 2), ("resnet18", 32, 2)],
)
def test_a_row_has_the_same_bits_in_any_group(name: str, resolution: int, layers: int) -> None:
    source = source_of(trunk_of(name, resolution, layers), Watched(2 * GROUP), resolution)
    assert takes_any_order(source)
    mixed = np.random.default_rng(1).permutation(2 * GROUP)
    found = np.concatenate([source.computed(mixed[:GROUP]), source.computed(mixed[GROUP:])])
    assert np.array_equal(found, np.concatenate([source.compute(0), source.compute(1)])[mixed])


class OfItsPlace(nn.Module):
    """A trunk whose rows depend on where they are in a group."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.cumsum(0)


def test_a_trunk_that_tells_places_apart_is_found_out() -> None:
    source = source_of(fx.symbolic_trace(OfItsPlace()), Watched())
    assert not takes_any_order(source)


@pytest.mark.parametrize("workers", [1, 3])
def test_rows_have_the_bits_of_the_whole_entry_in_whatever_order(
    begun: Open, trunk: fx.GraphModule, whole: torch.Tensor, workers: int
) -> None:
    rows = torch.tensor([COUNT - 1, *range(70, 0, -2), COUNT - 5])  # the last group's too
    ahead = begun(source_of(trunk, Watched()), workers=workers)
    ahead.bring(rows[:3])
    ahead.bring(rows)
    assert torch.equal(ahead.features[rows], whole[rows])


def test_what_nobody_needs_is_never_computed(begun: Open, trunk: fx.GraphModule, whole: torch.Tensor) -> None:
    images = Watched()
    source = source_of(trunk, images)
    form_of(source)
    images.read.clear()
    ahead = begun(source, 90, 5, 40)
    ahead.bring(torch.tensor([5, 40, 90]))
    ahead.bring(torch.tensor([7, 90]))
    assert torch.equal(ahead.features[[90, 7]], whole[[90, 7]])
    assert images.ever == {0, 5, 7, 40, 90}  # and one by which their form was found


def test_what_is_asked_for_comes_before_the_rest(begun: Open, trunk: fx.GraphModule) -> None:
    """Held in its first rows, it is asked for others; they come second."""
    begins, goes_on = threading.Event(), threading.Event()

    def hold(rows: Numbers) -> None:
        if 0 in rows and len(rows) == GROUP:
            begins.set()
            goes_on.wait()

    images = Watched(500, hold)
    ahead = begun(source_of(trunk, images), *range(400))
    begins.wait()
    asking = threading.Thread(target=ahead.bring, args=(torch.tensor([450]),))
    asking.start()
    while not ahead.ahead.asked:
        time.sleep(0.001)
    goes_on.set()
    asking.join()
    ahead.bring(torch.arange(400))
    order = [rows for rows in images.read if len(rows) == GROUP]
    at = next(place for place, rows in enumerate(order) if 450 in rows)
    assert {int(row) for rows in order[:at] for row in rows} == set(range(128))


def test_all_rows_become_the_entry(
    begun: Open, trunk: fx.GraphModule, whole: torch.Tensor, tmp_path: Path
) -> None:
    images = Watched()
    source = source_of(trunk, images)
    ahead = begun(source, *reversed(range(COUNT)))
    ahead.bring(torch.arange(COUNT))
    store = FeatureStore(tmp_path)
    while form_of_rows(store, key_of(source)) is not None:
        time.sleep(0.01)
    found = store.find(key_of(source))
    assert found is not None
    assert torch.equal(found, whole)
    assert torch.equal(ahead.features, whole)  # of whoever had the rows open
    assert form_of_rows(store, key_of(source)) is None
    images.read.clear()
    assert torch.equal(store.features(source), whole)
    assert images.read == []


@pytest.mark.skipif(sys.platform != "linux", reason="a thread has a niceness of its own on Linux alone")
def test_what_nobody_waits_for_yields_to_other_work(begun: Open, trunk: fx.GraphModule) -> None:
    begins, goes_on, nice = threading.Event(), threading.Event(), dict[int, int]()

    def hold(rows: Numbers) -> None:
        nice[int(rows[0])] = os.getpriority(os.PRIO_PROCESS, 0)
        if rows[0] == 300:
            begins.set()
            goes_on.wait()

    ahead = begun(source_of(trunk, Watched(500, hold)), *range(300, 450))
    begins.wait()
    ahead.ahead.yield_to_others()
    asking = threading.Thread(target=ahead.bring, args=(torch.tensor([200]),))
    asking.start()
    while not ahead.ahead.asked:
        time.sleep(0.001)
    goes_on.set()
    asking.join()
    while not ahead.rows.seen(np.arange(300, 450)):
        time.sleep(0.001)
    here = os.getpriority(os.PRIO_PROCESS, 0)
    assert (nice[300], nice[200], nice[428]) == (here, here, min(19, here + 16))


def test_two_runs_compute_each_row_once(begun: Open, trunk: fx.GraphModule) -> None:
    images = Watched(500), Watched(500)
    runs = [begun(source_of(trunk, one), *range(400)) for one in images]
    for run in runs:
        run.bring(torch.arange(400))
    assert torch.equal(runs[0].features[:400], runs[1].features[:400])
    groups = [rows for one in images for rows in one.read if len(rows) == GROUP]
    assert sorted({int(row) for rows in groups for row in rows}) == list(range(400))
    assert len(groups) == 13


def test_rows_of_another_run_in_their_place_do_not_become_an_entry(
    begun: Open, trunk: fx.GraphModule, whole: torch.Tensor, tmp_path: Path
) -> None:
    """The store was emptied while they were computed, and another run began there: it has two rows, not all."""
    begins, goes_on = threading.Event(), threading.Event()

    def hold(rows: Numbers) -> None:
        if 60 in rows and len(rows) == GROUP:
            begins.set()
            goes_on.wait()

    source = source_of(trunk, Watched(before=hold))
    ahead = begun(source, *range(COUNT))
    begins.wait()
    shutil.rmtree(tmp_path)
    other = begun(source)
    other.bring(torch.tensor([3, 4]))
    goes_on.set()
    ahead.bring(torch.arange(COUNT))
    assert torch.equal(ahead.features, whole)
    ahead.bring(torch.arange(COUNT))
    ahead.ahead.close()
    store, form = FeatureStore(tmp_path), form_of(source)
    assert not ahead.rows.finish(source.about())
    assert store.find(form.key) is None
    assert rows_are_there(store, form, np.array([3, 4]))
    assert not rows_are_there(store, form, np.array([5]))


def test_several_entries_are_computed_in_turn(begun: Open, trunk: fx.GraphModule) -> None:
    """Held in the first rows of one entry until rows of the other are asked for, which come next."""
    begins, goes_on, groups = threading.Event(), threading.Event(), list[str]()

    def one(rows: Numbers) -> None:
        if len(rows) == GROUP:
            groups.append("a")
            begins.set()
            goes_on.wait()

    def other(rows: Numbers) -> None:
        groups.extend("B" if 450 in rows else "b" for _ in range(len(rows) == GROUP))

    first = begun(source_of(trunk, Watched(500, one)), *range(400))
    begins.wait()
    source = replace(source_of(trunk, Watched(500, other)), fingerprint="b")
    second = begun(source, *range(400), beside=first)
    asking = threading.Thread(target=second.bring, args=(torch.tensor([450]),))
    asking.start()
    while not first.ahead.asked:
        time.sleep(0.001)
    goes_on.set()
    asking.join()
    while not (first.rows.seen(np.arange(400)) and second.rows.seen(np.arange(400))):
        time.sleep(0.001)
    assert "".join(groups) == "aaaa" "B" "bbbb" "aaaa" "bbbb" "aaaa" "bbbb" "a" "b"  # fmt: skip
    assert torch.equal(first.features[:400], second.features[:400])


def test_what_failed_of_one_entry_ends_all(begun: Open, trunk: fx.GraphModule) -> None:
    def spoiled(rows: Numbers) -> None:
        if 9 in rows:
            raise MissingDataError("9.png is not a readable image")

    good = begun(source_of(trunk, Watched()))
    begun(replace(source_of(trunk, Watched(before=spoiled)), fingerprint="b"), 9, beside=good)
    good.ahead.ended.wait()
    with pytest.raises(MissingDataError, match=r"9\.png"):
        good.bring(torch.tensor([1]))
    with pytest.raises(MissingDataError, match=r"9\.png"):
        begun(source_of(trunk, Watched()), beside=good)


def test_rows_from_before_a_kill_are_not_computed_again(
    begun: Open, trunk: fx.GraphModule, whole: torch.Tensor, tmp_path: Path
) -> None:
    first = begun(source_of(trunk, Watched()))
    first.bring(torch.tensor([3, 4, 50]))
    first.ahead.close()
    images = Watched()
    source = source_of(trunk, images)
    store, form = FeatureStore(tmp_path), form_of(source)
    assert form_of_rows(store, form.key) == form
    assert rows_are_there(store, form, np.array([3, 50]))
    assert not rows_are_there(store, form, np.array([3, 5]))
    path = tmp_path / name_of_rows(form.key) / "features.npy"
    content = bytearray(path.read_bytes())
    content[len(content) - (COUNT - 4) * form.row_bytes] ^= 1  # of row 4
    path.write_bytes(content)
    images.read.clear()
    second = begun(source, 3, 4, 50, 60)
    second.bring(torch.tensor([3, 4, 50, 60]))
    assert torch.equal(second.features[[3, 4, 50, 60]], whole[[3, 4, 50, 60]])
    assert images.ever == {0, 4, 60}


def test_an_image_that_cannot_be_read_ends_the_wait_for_it_alone(begun: Open, trunk: fx.GraphModule) -> None:
    def spoiled(rows: Numbers) -> None:
        if 9 in rows:
            raise MissingDataError("9.png is not a readable image")

    ahead = begun(source_of(trunk, Watched(before=spoiled)))
    with pytest.raises(MissingDataError, match=r"9\.png"):
        ahead.bring(torch.tensor([8, 9]))
    ahead.bring(torch.tensor([8]))


def test_whoever_comes_after_what_failed_ahead_is_told_why(begun: Open, trunk: fx.GraphModule) -> None:
    def spoiled(rows: Numbers) -> None:
        if 9 in rows:
            raise MissingDataError("9.png is not a readable image")

    ahead = begun(source_of(trunk, Watched(before=spoiled)), 9)
    ahead.ahead.ended.wait()
    with pytest.raises(MissingDataError, match=r"9\.png"):
        ahead.bring(torch.tensor([1]))


def test_when_it_ends_nobody_waits_for_ever(begun: Open, trunk: fx.GraphModule) -> None:
    begins, goes_on = threading.Event(), threading.Event()

    def hold(rows: Numbers) -> None:
        if 40 in rows:
            begins.set()
            goes_on.wait()

    ahead = begun(source_of(trunk, Watched(before=hold)), 40, workers=1)
    begins.wait()
    said: list[str] = []

    def ask() -> None:
        with pytest.raises(RunError) as raised:
            ahead.bring(torch.tensor([1]))
        said.append(str(raised.value))

    asking = threading.Thread(target=ask)
    asking.start()
    while not ahead.ahead.asked:
        time.sleep(0.001)
    closing = threading.Thread(target=ahead.ahead.close)
    closing.start()
    goes_on.set()
    closing.join()
    asking.join()
    assert said == ["no more features are computed, as the run has ended"]
    with pytest.raises(RunError, match="no more features are computed"):
        ahead.bring(torch.tensor([2]))


def test_large_features_are_computed_fewer_at_once(trunk: fx.GraphModule) -> None:
    computing = Computing(lambda: source_of(trunk, Watched()), workers=2)
    groups = [computing.at_once(size) // (2 * GROUP) for size in (24 * 1024, 2 * 1024**2, 8 * 1024**2)]
    assert groups == [4, 2, 1]


def test_a_store_without_room_says_so_at_once(begun: Open, trunk: fx.GraphModule) -> None:
    with pytest.raises(ConfigError, match="do not fit the store's limit"):
        begun(source_of(trunk, Watched()), limit=1000)


def test_a_full_disk_is_one_line_at_once_and_leaves_nothing_in_the_way(
    begun: Open, trunk: fx.GraphModule, whole: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_given: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(feature_file, "_reserve", full)
        with pytest.raises(RunError, match=r"^the feature store in \S+ failed: No space left on device$"):
            begun(source_of(trunk, Watched()), 3)
    again = begun(source_of(trunk, Watched()), 3)
    again.bring(torch.tensor([3]))
    assert torch.equal(again.features[3], whole[3])


def test_an_entry_that_cannot_be_finished_stays_as_rows(
    begun: Open, trunk: fx.GraphModule, whole: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk is full when all rows are there: what has them goes on, and whoever asks gets them."""
    tried = threading.Event()

    def full(*_given: object) -> None:
        tried.set()
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(feature_file.PartFile, "finish", full)
    ahead = begun(source_of(trunk, Watched()), *range(COUNT))
    tried.wait()
    ahead.bring(torch.arange(COUNT))
    assert torch.equal(ahead.features, whole)
    other = begun(replace(source_of(trunk, Watched()), fingerprint="b"), beside=ahead)
    other.bring(torch.tensor([7]))  # which is done after that failed
    assert torch.equal(other.features[7], whole[7])


def test_features_of_half_the_bits_are_the_same_too(
    begun: Open, trunk: fx.GraphModule, tmp_path: Path
) -> None:
    source = replace(source_of(trunk, Watched()), dtype="float16")
    expected = FeatureStore(tmp_path / "other").features(source)
    ahead = begun(source)
    ahead.bring(torch.tensor([100, 2]))
    assert torch.equal(ahead.features[[100, 2]], expected[[100, 2]])
