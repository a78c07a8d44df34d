"""A fleet with several resolutions: what each device sees, trains on and is evaluated on."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from fed_asi import data
from fed_asi.compression import cut
from fed_asi.data.feature_file import MARKS
from fed_asi.data.images import to_batch
from fed_asi.devices.job import Job
from fed_asi.devices.reply import Reply, do_job
from fed_asi.devices.warm_factors import OnDisk
from fed_asi.errors import ConfigError
from fed_asi.files import read_tensors
from fed_asi.fleets import fleet
from fed_asi.fleets.config import RunConfig
from fed_asi.fleets.fleet import Fleet
from fed_asi.models import normalisation
from fed_asi.results.progress import Unwatched
from fed_asi.results.store import RunStore
from fed_asi.results.summary import summarise
from fed_asi.results.table import columns
from fed_asi.rounds.executor import LoopExecutor
from fed_asi.rounds.group_judging import judge_groups
from fed_asi.rounds.run import conduct, recording, run_loop
from fed_asi.rounds.timing import Timing
from fed_asi.storage.trunk import stored_trunk
from fed_asi.training.evaluation import load_tensors_
from fed_asi.workplace import opening
from fed_asi.workplace.afar import Lender, open_afar
from fed_asi.workplace.ahead import look_ahead
from fed_asi.workplace.opening import open_workplace
from fed_asi.workplace.place import Workplace
from fed_asi.workplace.prepare import prepare
from fed_asi.workplace.splits import split_images
from memory_grid import MemoryGrid, run_in_memory
from runs import job, records, small

EACH = {"count": 1, "budget": "unlimited", "batch_size": 16, "micro_batch": 1}
BOARD = {**EACH, "name": "board", "ram": "34 KiB", "resolution": [32, 16]}  # at 32 pixels a step needs 52 KiB
GROUPS = [
    BOARD,
    {**EACH, "name": "roomy", "count": 2, "resolution": [16, 32]},
    {**EACH, "name": "pinned", "resolution": 16},
]


def of(**changes: Any) -> RunConfig:
    settings: dict[str, Any] = {
        "storage": {"frozen": "int8", "calibration_images": 8},
        "method": {"name": "asi-published", "layers": 2, "calibration_images": 8, "centered": None},
        "data": {"limit": 72, "public": 16, "test_limit": 32},
        "train": {"update": "layer"},
        "measure": {"groups": "every-round"},
        "groups": GROUPS,
        "cohort": 4,
    }
    return small(**{**settings, **changes})


CONFIG = of()


@pytest.fixture(autouse=True)
def _profiles(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FED_ASI_PROFILES_DIR", str(tmp_path_factory.getbasetemp() / "profiles"))


@dataclass(frozen=True)
class Done:
    """A run that was done on the loop, and its workplace."""

    place: Workplace
    folder: Path


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Done]:
    folder = tmp_path_factory.mktemp("resolutions")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FED_ASI_FEATURES_DIR", str(folder / "features"))
        patch.setenv("FED_ASI_PROFILES_DIR", str(tmp_path_factory.getbasetemp() / "profiles"))
        place = prepare(CONFIG, folder / "workplace")
        with recording(CONFIG, folder / "run", resume=False) as store:
            conduct(place, store, LoopExecutor(place, folder / "devices"), Unwatched())
        yield Done(place, folder)


def test_a_device_takes_the_largest_at_which_it_has_a_plan(done: Done) -> None:
    assert done.place.resolutions is not None
    assert done.place.resolutions.tolist() == [16, 32, 32, 16]
    assert [done.place.seen_by(i).resolution for i in range(4)] == [16, 32, 32, 16]
    with RunStore.read(done.folder / "run") as store:
        assert store.select("SELECT resolution FROM devices ORDER BY partition_id") == [
            (16,),
            (32,),
            (32,),
            (16,),
        ]
        rows = list(store.device_rounds())
        notes, summary = store.notes(), summarise(store)
    assert {row.outcome for row in rows} == {"trained"}
    assert all(row.ram_bytes <= 34 * 1024 for row in rows if row.ram_bytes is not None)
    assert {row.partition_id for row in rows if row.ram_bytes is not None} == {0}
    (said,) = (text for text in notes if text.startswith("resolution:"))
    assert "2 at 32 x 32 and 2 at 16 x 16 pixels" in said
    (pixels,) = (one for one in columns(summary) if one.title == "pixels")
    assert [pixels.cell(group) for group in summary.groups] == ["16", "32", "16"]


def test_it_is_fed_what_its_own_stored_trunk_gives_at_that_resolution(done: Done) -> None:
    splits = split_images(CONFIG, data.load("digits"))
    manifest = opening._read_manifest(done.place.folder)
    base = read_tensors(done.place.folder / "base.pt")
    trunk, _ = opening.rebuild(CONFIG, manifest, base)
    mean, std = normalisation("tiny")
    for partition_id, said in ((0, manifest["resolutions"]["16"]), (1, manifest)):
        place = done.place.seen_by(partition_id)
        rows = place.shard(partition_id).train[:3]
        quick = stored_trunk(cut.folded(trunk), "int8", said["ranges"])
        with torch.inference_mode():
            expected = quick(to_batch(splits.train[0][:][rows], place.resolution, mean, std))
        assert torch.equal(place.inputs(torch.from_numpy(rows)), expected)
        assert expected.shape[-1] == place.resolution // 4
    assert manifest["ranges"] != manifest["resolutions"]["16"]["ranges"]


def test_a_group_is_judged_as_its_devices_see(done: Done) -> None:
    place = done.place
    load_tensors_(place.tail, place.reference)
    devices = fleet.build(CONFIG)
    together = Fleet(tuple(replace(device, group="all") for device in devices))
    found = {
        one.group_name: one for one in (*judge_groups(place, devices, 0), *judge_groups(place, together, 0))
    }
    for name, ids in (("board", [0]), ("roomy", [1, 2]), ("pinned", [3]), ("all", [0, 1, 2, 3])):
        logits, labels = [], []
        for i in ids:
            rows = torch.from_numpy(place.shard(i).holdout)
            with torch.inference_mode():
                logits.append(place.tail(place.seen_by(i).inputs(rows)))
            labels.append(place.labels[rows])
        loss = float(F.cross_entropy(torch.cat(logits), torch.cat(labels)))
        assert found[name].loss == pytest.approx(loss)
        right = torch.cat(logits).argmax(1) == torch.cat(labels)
        assert found[name].accuracy == float(right.double().mean())
        assert found[name].devices == len(ids)


class Stops(LoopExecutor):
    """A loop that a power cut ends after the first reply of round 2."""

    def train(
        self, jobs: Sequence[Job], tensors: Mapping[str, Tensor], sizes: object = None
    ) -> Iterator[Reply]:
        for reply in super().train(jobs, tensors):
            yield reply
            if jobs[0].round == 2:
                raise SystemError("the power went")


@pytest.mark.slow
@pytest.mark.computes
def test_stopped_without_its_features_or_on_flower_it_ends_with_the_same_bits(
    done: Done, tmp_path: Path
) -> None:
    with recording(CONFIG, tmp_path / "cut", resume=False) as store:
        with pytest.raises(SystemError, match="the power went"):
            conduct(done.place, store, Stops(done.place, tmp_path / "devices"), Unwatched())
        store.set_status("running")
    shutil.copytree(done.place.folder, tmp_path / "workplace")
    manifest = tmp_path / "workplace" / "manifest.json"
    manifest.write_text(
        manifest.read_text().replace(str(done.folder), str(tmp_path))
    )  # where no features are
    again = open_workplace(tmp_path / "workplace")
    assert sorted((tmp_path / "features").glob("*/features.npy"))
    assert again.views.keys() == {16}
    with recording(CONFIG, tmp_path / "cut", resume=True) as store:
        conduct(again, store, LoopExecutor(again, tmp_path / "devices"), Unwatched())
    run_in_memory(CONFIG, done.place, tmp_path / "flower", MemoryGrid.of(4, seed=3))
    assert records(done.folder / "run") == records(tmp_path / "cut") == records(tmp_path / "flower")


def rows_kept(folder: Path) -> dict[int, set[int]]:
    """Which rows of the training images a store has features of, by the height of the maps."""
    found = dict[int, set[int]]()
    for rows in folder.glob("*.rows"):
        height = np.load(rows / "features.npy", mmap_mode="r").shape[-1]
        found[height] = {*np.flatnonzero(np.fromfile(rows / MARKS, np.uint64)).tolist()}
    return found


@pytest.mark.slow
@pytest.mark.computes
def test_rounds_begin_with_the_rows_that_devices_need_at_each_resolution(
    done: Done, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is computed at a resolution for devices of another one, also where features are lost."""
    monkeypatch.setenv("FED_ASI_FEATURES_DIR", str(tmp_path / "features"))
    run_loop(CONFIG, tmp_path / "run")
    assert records(tmp_path / "run") == records(done.folder / "run")
    ids = {32 // 4: (1, 2), 16 // 4: (0, 3)}
    needed = {side: {int(row) for i in some for row in done.place.shards[i]} for side, some in ids.items()}
    assert rows_kept(tmp_path / "features") == needed
    shutil.rmtree(tmp_path / "features")
    with (again := prepare(CONFIG, tmp_path / "run" / "workplace", early=True)).going_on():
        again.need_of(range(4))
        assert rows_kept(tmp_path / "features") == needed
        for i in range(4):
            rows = torch.from_numpy(again.shards[i])
            assert torch.equal(again.seen_by(i).inputs(rows), done.place.seen_by(i).inputs(rows))


def test_on_a_machine_that_cannot_see_the_folder_its_own_rows_come(
    done: Done, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FED_ASI_NODE_DIR", str(tmp_path / "node"))
    monkeypatch.setenv("FED_ASI_FEATURES_DIR", str(tmp_path / "node" / "features"))
    asked: dict[str, set[int]] = {}

    class Counted(Lender):
        def rows(self, rows: Sequence[int], use: str = "train") -> Any:
            asked.setdefault(use, set()).update(rows)
            return super().rows(rows, use)

    there = open_afar(Counted(done.place.folder), tmp_path / "nowhere")
    for partition_id, use in ((3, "train at 16"), (1, "train")):
        asked.clear()
        resources = fleet.build(CONFIG)[partition_id].resources
        asks = job(resources, partition_id=partition_id)
        replies = [
            do_job(where, asks, where.reference, OnDisk(tmp_path / f"{partition_id} {number}"))
            for number, where in enumerate((done.place, there))
        ]
        assert replies[0].to_json() == replies[1].to_json()
        assert all(torch.equal(one, replies[1].tensors[name]) for name, one in replies[0].tensors.items())
        assert asked == {use: {int(row) for row in done.place.shards[partition_id]}}


@pytest.mark.slow
@pytest.mark.computes
def test_where_all_train_at_one_the_weights_are_those_of_a_run_at_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FED_ASI_FEATURES_DIR", str(tmp_path / "features"))
    groups = [{**EACH, "name": "all", "count": 3, "micro_batch": 4}]
    method = {"name": "asi-published", "layers": 2, "calibration_images": 8, "calibration": "device"}
    plain: dict[str, Any] = {"storage": {}, "train": {}, "measure": {"twins": True}, "method": method}
    pinned = [{**groups[0], "resolution": 16}]
    run_loop(of(**plain, rounds=1, cohort=3, groups=groups, model={"resolution": 16}), tmp_path / "model")
    run_loop(of(**plain, rounds=1, cohort=3, groups=pinned), tmp_path / "devices")
    (rows, weights), (others, same) = records(tmp_path / "model"), records(tmp_path / "devices")
    assert weights == same
    kept = ("round", "lr", "weights_sha256", "asked")
    for row, other in zip(rows, others, strict=True):
        if "worst_class_accuracy" in row:  # of the server, which judges at the model's resolution
            assert {key: row[key] for key in kept} == {key: other[key] for key in kept}
            assert row["loss"] != other["loss"]
        else:
            assert row == other


@pytest.mark.slow
@pytest.mark.computes
def test_features_that_are_not_kept_are_those_of_the_store(
    done: Done, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FED_ASI_FEATURES_DIR", str(tmp_path / "features"))
    off = prepare(of(compute={"features": "off"}), tmp_path / "off")
    for partition_id in (0, 1):
        rows = torch.from_numpy(off.shard(partition_id).train)
        kept = done.place.seen_by(partition_id).inputs(rows)
        assert torch.equal(off.seen_by(partition_id).inputs(rows), kept)


def test_time_is_that_of_the_images_a_device_sees(done: Done) -> None:
    devices = fleet.build(of(groups=[{**one, "device": "stm32h743"} for one in GROUPS]))
    timed = Timing.of(done.place, devices)
    assert timed is not None
    large, small = (timed.ahead(job(devices[one].resources, partition_id=one)) for one in (1, 3))
    assert large is not None
    assert small is not None
    assert large.download_seconds == small.download_seconds > 0.0
    each = [
        one.trunk_seconds / timed.images(i).train for one, i in ((large, 1), (small, 3))
    ]  # micro-batches of 1
    assert 3.0 < each[0] / each[1] <= 4.0


def test_check_tells_the_resolution_and_what_a_step_needs() -> None:
    found = {one.group: one for one in look_ahead(CONFIG)}
    assert {name: one.resolution for name, one in found.items()} == {"board": 16, "roomy": 32, "pinned": 16}
    assert found["board"].memory is not None
    assert 0 < found["board"].memory.ram_bytes <= 34 * 1024
    assert found["roomy"].memory is None


@pytest.mark.slow
@pytest.mark.computes
def test_a_device_that_fits_at_none_names_the_smallest() -> None:
    groups = [{**BOARD, "ram": "5 KiB"}]
    config = of(groups=groups, cohort=1, storage={"frozen": "any", "calibration_images": 8})
    with pytest.raises(
        ConfigError,
        match=r"no device can do a step: at 16 x 16 pixels: ram 5\.0 KiB is below the smallest step",
    ):
        look_ahead(config)
