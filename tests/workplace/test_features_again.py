"""A run's features as the server and its workers open them: whole, by need, or made again where they are gone."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from fed_asi import data
from fed_asi.data.features import FeatureSource
from fed_asi.data.rows_ahead import RowsAhead
from fed_asi.errors import MissingDataError
from fed_asi.fleets.cohort import cohort_of
from fed_asi.workplace import features
from fed_asi.workplace.features_again import Sources
from fed_asi.workplace.opening import open_workplace
from fed_asi.workplace.place import Workplace
from fed_asi.workplace.prepare import prepare
from runs import small

# Whom nobody asks: all but two of twelve.
CONFIG = small(
    rounds=1,
    cohort=2,
    data={"source": "own", "limit": 320, "holdout": 0.25},
    method={"calibration_images": 8},
    measure={"groups": "never"},
    groups=[{"name": "all", "count": 12, "budget": None, "batch_size": 16}],
)
ASKED = cohort_of(CONFIG, 1)
OTHER = next(one for one in range(12) if one not in ASKED)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a data set of one's own."""
    digits, folder = data.load("digits"), tmp_path_factory.mktemp("data")
    arrays = {"x_train": digits.x_train[:400], "y_train": digits.y_train[:400]}
    np.savez(folder / "own.npz", **arrays, x_test=digits.x_test[:64], y_test=digits.y_test[:64])
    return folder


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> Path:
    monkeypatch.setenv("FED_ASI_FEATURES_DIR", str(tmp_path / "features"))
    monkeypatch.setenv("FED_ASI_PROFILES_DIR", str(tmp_path_factory.getbasetemp() / "profiles"))
    return tmp_path / "features"


@pytest.fixture(scope="module")
def whole(
    images: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """All features of the training images, and of the test images."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FED_ASI_FEATURES_DIR", str(tmp_path_factory.mktemp("whole")))
        patch.setenv("FED_ASI_PROFILES_DIR", str(tmp_path_factory.getbasetemp() / "profiles"))
        place = prepare(CONFIG, tmp_path_factory.mktemp("place") / "workplace", data_dir=images)
        assert place.features is not None
        yield place.features.clone(), place.test_features.clone()


@pytest.fixture
def place(images: Path, store: Path, tmp_path: Path) -> Iterator[Workplace]:
    """As a run prepares it, and goes on."""
    made = prepare(CONFIG, tmp_path / "workplace", data_dir=images, early=True)
    with made.going_on():
        yield made


def rows_of(place: Workplace, one: int) -> torch.Tensor:
    return torch.from_numpy(place.shards[one])


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many images went through the trunk, call by call, from now on."""
    seen: list[int] = []
    real = FeatureSource.computed

    def computed(self: FeatureSource, rows: object) -> object:
        found = real(self, rows)  # type: ignore[arg-type]
        seen.append(len(found))
        return found

    monkeypatch.setattr(FeatureSource, "computed", computed)
    return seen


def test_a_run_begins_with_the_features_of_those_it_asks_alone(
    place: Workplace, whole: tuple[torch.Tensor, torch.Tensor], store: Path
) -> None:
    """A worker sees what the server has, and computes for itself what it has not."""
    assert torch.equal(place.test_features, whole[1])
    rows = torch.cat([rows_of(place, one) for one in ASKED])
    assert place.features is not None
    assert torch.equal(place.features[rows], whole[0][rows])
    never = sorted({*range(320)} - {*rows.tolist()})
    assert not place.features[never].any()
    worker = open_workplace(place.folder, opened=Sources.open_rows)
    assert worker.ahead is None
    assert torch.equal(worker.inputs(rows), whole[0][rows])
    other = rows_of(place, OTHER)
    assert torch.equal(worker.inputs(other), whole[0][other])
    assert torch.equal(place.inputs(other), whole[0][other])  # as the worker left them
    place.need_of([*range(12)])
    assert torch.equal(place.features, whole[0])
    assert [path.name for path in store.glob("*.rows")] != []


def test_whoever_opens_it_without_a_word_has_all(
    place: Workplace, whole: tuple[torch.Tensor, torch.Tensor]
) -> None:
    opened = open_workplace(place.folder)
    assert opened.bring is None
    assert opened.features is not None
    assert torch.equal(opened.features, whole[0])


def test_a_run_that_goes_on_computes_what_is_missing_alone(
    images: Path, store: Path, tmp_path: Path, counted: list[int], whole: tuple[torch.Tensor, torch.Tensor]
) -> None:
    with prepare(CONFIG, tmp_path / "workplace", data_dir=images, early=True).going_on():
        pass
    counted.clear()
    again = prepare(CONFIG, tmp_path / "workplace", data_dir=images, early=True)
    with again.going_on():
        assert sum(counted) == 0
        rows = torch.cat([rows_of(again, one) for one in ASKED])
        assert torch.equal(again.inputs(rows), whole[0][rows])
        assert sum(counted) == 0
    shutil.rmtree(store)
    with prepare(CONFIG, tmp_path / "workplace", data_dir=images, early=True).going_on():
        pass
    assert 0 < sum(counted) < 320 + 64


def test_a_worker_that_finds_them_gone_has_all_made_again(
    place: Workplace, store: Path, whole: tuple[torch.Tensor, torch.Tensor]
) -> None:
    shutil.rmtree(store)
    worker = open_workplace(place.folder, opened=Sources.open_rows)
    rows = rows_of(place, OTHER)
    assert torch.equal(worker.inputs(rows), whole[0][rows])
    assert torch.equal(place.inputs(rows_of(place, ASKED[0])), whole[0][rows_of(place, ASKED[0])])


def test_rows_that_all_came_are_opened_as_the_whole_entry(
    images: Path, store: Path, tmp_path: Path, whole: tuple[torch.Tensor, torch.Tensor]
) -> None:
    with prepare(CONFIG, tmp_path / "few", data_dir=images, early=True).going_on():
        pass
    everyone = CONFIG.model_copy(update={"cohort": 12})
    with prepare(everyone, tmp_path / "all", data_dir=images, early=True).going_on():
        while [*store.glob("*.rows")]:
            time.sleep(0.001)
    worker = open_workplace(tmp_path / "few", opened=Sources.open_rows)
    assert worker.bring is None
    rows = rows_of(worker, OTHER)
    assert torch.equal(worker.inputs(rows), whole[0][rows])


def test_a_trunk_that_takes_images_in_their_order_alone_has_all_made_first(
    images: Path,
    store: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    whole: tuple[torch.Tensor, torch.Tensor],
) -> None:
    monkeypatch.setattr(features, "takes_any_order", lambda _source: False)
    place = prepare(CONFIG, tmp_path / "workplace", data_dir=images, early=True)
    assert place.bring is None
    assert place.features is not None
    assert torch.equal(place.features, whole[0])


def test_images_that_are_gone_are_one_line(place: Workplace, images: Path, tmp_path: Path) -> None:
    moved = images.rename(tmp_path / "moved")
    try:
        worker = open_workplace(place.folder, opened=Sources.open_rows)
        with pytest.raises(MissingDataError, match=r"^the run's features are gone from"):
            worker.inputs(rows_of(place, OTHER))
    finally:
        moved.rename(images)


def test_half_a_preparation_leaves_nothing_at_work(
    images: Path, store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk fails once features are being computed: they are computed no more."""
    begun: list[RowsAhead] = []
    real = features.begun

    def noted(ahead: RowsAhead, *given: object) -> features.Features:
        begun.append(ahead)
        return real(ahead, *given)  # type: ignore[arg-type]

    def full(*_given: object) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(features, "begun", noted)
    monkeypatch.setattr("fed_asi.workplace.prepare.write_tensors", full)
    with pytest.raises(OSError, match="no space"):
        prepare(CONFIG, tmp_path / "workplace", data_dir=images, early=True)
    assert begun[0].ended.is_set()
