"""The shared model by group: counted by hand, whoever trained, and the same with any number of workers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from fed_asi.fleets import fleet
from fed_asi.results.store import RunStore
from fed_asi.rounds import group_judging
from fed_asi.rounds.group_judging import judge_groups
from fed_asi.rounds.run import run_loop
from fed_asi.training.evaluation import load_tensors_
from fed_asi.workplace.place import Workplace
from fed_asi.workplace.prepare import prepare
from runs import small

FEW = {"public": 32, "limit": 90, "test_limit": 32}


@pytest.fixture(autouse=True)
def _features(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FED_ASI_FEATURES_DIR", str(tmp_path_factory.getbasetemp() / "features"))
    monkeypatch.setenv("FED_ASI_PROFILES_DIR", str(tmp_path_factory.getbasetemp() / "profiles"))


@pytest.fixture
def place(tmp_path: Path) -> Workplace:
    place = prepare(small(data=FEW), tmp_path / "workplace")
    load_tensors_(place.tail, place.reference)
    return place


def test_a_group_is_judged_on_all_that_its_devices_hold_back(place: Workplace) -> None:
    found = {one.group_name: one for one in judge_groups(place, fleet.build(place.config), 4)}
    assert list(found) == ["tight", "roomy"]
    for name, devices in (("tight", range(3)), ("roomy", range(3, 6))):
        rows = [torch.from_numpy(place.shard(i).holdout) for i in devices]
        with torch.inference_mode():
            right = [place.tail(place.inputs(one)).argmax(1) == place.labels[one] for one in rows]
        each = np.array([float(one.double().mean()) for one in right])
        record = found[name]
        assert (record.round, record.devices, record.num_examples) == (4, 3, sum(map(len, rows)))
        assert record.accuracy == float(torch.cat(right).double().mean())
        assert record.device_accuracy == pytest.approx(each.mean())
        assert record.device_accuracy_error == pytest.approx(each.std(ddof=1) / 3**0.5)
        with torch.inference_mode():
            logits = place.tail(place.inputs(torch.cat(rows)))
            loss = torch.nn.functional.cross_entropy(logits, place.labels[torch.cat(rows)])
        assert record.loss == pytest.approx(float(loss))


def test_it_is_the_same_for_any_number_of_workers(place: Workplace, monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    for cpus in (1, 2, 4):
        monkeypatch.setattr(group_judging, "cpus_here", lambda cpus=cpus: cpus)
        found.append(judge_groups(place, fleet.build(place.config), 1))
    assert found[0] == found[1] == found[2]


def test_a_device_that_holds_nothing_back_is_not_counted_nor_is_a_group_of_such(place: Workplace) -> None:
    settings = place.config.model_copy(
        update={"data": place.config.data.model_copy(update={"holdout": 0.06})}
    )
    sparse = replace(place, config=settings)
    with_some = [i for i in range(6) if len(sparse.shard(i).holdout)]
    assert 0 < len(with_some) < 6
    found = judge_groups(sparse, fleet.build(settings), 1)
    assert sum(one.devices for one in found) == len(with_some)
    none = place.config.model_copy(update={"data": place.config.data.model_copy(update={"holdout": 0.0})})
    assert judge_groups(replace(place, config=none), fleet.build(none), 1) == []


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that says nothing of when; it is only read."""
    home = tmp_path_factory.mktemp("plain")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FED_ASI_FEATURES_DIR", str(home / "features"))
        run_loop(small(data=FEW), home / "run")
    return home / "run"


@pytest.mark.few(1)
@pytest.mark.parametrize(
    ("when", "rounds"), [("ends", [0, 0, 2, 2]), ("every-round", [0, 0, 1, 1, 2, 2]), ("never", [])]
)
def test_when_groups_are_judged_changes_no_other_record(
    when: str, rounds: list[int], plain: Path, tmp_path: Path
) -> None:
    run_loop(small(data=FEW, measure={"groups": when}), tmp_path / when)
    with RunStore.read(tmp_path / when) as store, RunStore.read(plain) as other:
        assert [one.round for one in store.group_rounds()] == rounds
        assert store.run().weights_sha256 == other.run().weights_sha256
        assert store.group_rounds()[:2] == (other.group_rounds()[:2] if rounds else [])
