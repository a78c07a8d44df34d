"""The round loop over any executor: replies of any kind, too many or from nobody, and a run that ends as it should."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

import hostile
from fed_asi.devices.job import Job
from fed_asi.devices.reply import Reply, failure
from fed_asi.errors import UpdateError
from fed_asi.results.progress import Unwatched
from fed_asi.results.store import RunStore
from fed_asi.rounds import checkpoints
from fed_asi.rounds.executor import LoopExecutor
from fed_asi.rounds.run import conduct
from fed_asi.workplace.address import run_fingerprint
from fed_asi.workplace.place import Workplace
from fed_asi.workplace.prepare import prepare
from runs import small

HOSTILE = 1
DTYPES = [torch.float16, torch.float32, torch.float64, torch.int64, torch.uint8, torch.uint16, torch.bool]
DTYPES += [torch.complex64, torch.bfloat16]


@dataclass
class Fleet:
    """Honest devices, whose replies are those of the first time, and one that says and sends what it is given."""

    executor: LoopExecutor
    text: str = ""
    tensors: dict[str, Tensor] = field(default_factory=dict)
    strays: tuple[int, ...] = ()  # devices of whom there is a reply too many
    honest: dict[int, Reply] = field(default_factory=dict)
    parallel = 1

    def train(
        self, jobs: Sequence[Job], tensors: Mapping[str, Tensor], sizes: Mapping[str, int] | None = None
    ) -> Iterator[Reply]:
        if not self.honest:
            self.honest = {reply.partition_id: reply for reply in self.executor.train(jobs, tensors, sizes)}
        for stray in self.strays:
            yield failure(stray, "failed", "nobody asked") if stray not in self.honest else self.honest[stray]
        for job in jobs:
            yield self.hostile(job) if job.partition_id == HOSTILE else self.honest[job.partition_id]

    def hostile(self, job: Job) -> Reply:
        try:
            return Reply.parse(job, self.text, self.tensors)
        except UpdateError as error:
            return failure(job.partition_id, "rejected", str(error))


@pytest.fixture(scope="module", params=["vanilla", "channels"])
def fleet(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Workplace, Fleet]:
    folder = tmp_path_factory.mktemp("fleet")
    groups = [{"name": "all", "count": 3, "budget": "unlimited", "batch_size": 8, "micro_batch": 4}]
    images = {"public": 32, "limit": 60, "test_limit": 32}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FED_ASI_FEATURES_DIR", str(tmp_path_factory.getbasetemp() / "features"))
        patch.setenv("FED_ASI_PROFILES_DIR", str(tmp_path_factory.getbasetemp() / "profiles"))
        settings = {"groups": groups, "data": images, "compute": {"side_by_side": False}}
        method = {"name": request.param}
        config = small(rounds=1, cohort=3, method=method, measure={"twins": True}, **settings)
        place = prepare(config, folder / "workplace")
    fleet = Fleet(LoopExecutor(place, folder / "devices"))
    run_with(place, fleet, folder / "honest")
    return place, fleet


def run_with(place: Workplace, fleet: Fleet, folder: Path) -> dict[int, Any]:
    """Do a run of one round; return its rows by device, when it has ended as it should."""
    with RunStore.create(folder, place.config) as store:
        conduct(place, store, fleet, Unwatched())
        assert store.exit_code() == 0
        rows = {row.partition_id: row for row in store.device_rounds(1)}
        notes = [note for note in store.notes() if "is ignored" in note]
    assert {i: rows[i].outcome for i in (0, 2)} == {0: "trained", 2: "trained"}
    assert set(rows) == {0, 1, 2}
    assert len(notes) == len(fleet.strays)
    return rows


@st.composite
def tensors(draw: st.DrawFn, good: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The good tensors with one of them of any type and shape, spoiled, sparse, or away."""
    found = dict(good)
    name = draw(st.sampled_from(sorted(good)))
    which = draw(st.integers(0, 4))
    if which == 0:
        shape = draw(st.sampled_from([tuple(good[name].shape), (), (0,), (0, 2**40), (2, 3)]))
        found[name] = torch.zeros(shape, dtype=draw(st.sampled_from(DTYPES)))
    elif which == 1:
        value = draw(st.sampled_from([float("nan"), float("inf"), -float("inf"), 3e38, 0.0]))
        found[name] = torch.full_like(good[name], value)
    elif which == 2:
        found[name] = good[name].to_sparse() if draw(st.booleans()) else good[name].to("meta")
    elif which == 3:
        del found[name]
    return found


def see_that_it_ends(data: st.DataObject, world: tuple[Workplace, Fleet], folder: Path) -> None:
    place, fleet = world
    good = fleet.honest[HOSTILE]
    said = json.loads(good.to_json())
    fleet.text = data.draw(st.one_of(st.just(good.to_json()), hostile.texts(said)))
    fleet.tensors = data.draw(tensors(good.tensors))
    fleet.strays = tuple(data.draw(st.sampled_from([(), (0,), (99,), (-1, 2**70)])))
    rows = run_with(place, fleet, folder)
    if rows[HOSTILE].outcome != "trained":
        assert rows[HOSTILE].cause
    kept = checkpoints.load(folder / "checkpoints", 1, run_fingerprint(place.config)).tensors
    assert all(bool(torch.isfinite(tensor).all()) for tensor in kept.values())


FOREVER = {"deadline": None, "suppress_health_check": list(HealthCheck)}


@pytest.mark.few(1)
@settings(max_examples=25, **FOREVER)
@given(data=st.data())
def test_whatever_a_reply_holds_the_run_ends_as_it_should(
    data: st.DataObject, fleet: tuple[Workplace, Fleet], tmp_path_factory: pytest.TempPathFactory
) -> None:
    see_that_it_ends(data, fleet, tmp_path_factory.mktemp("run") / "run")


@pytest.mark.slow
@pytest.mark.computes
@settings(max_examples=1000, **FOREVER)
@given(data=st.data())
def test_whatever_a_reply_holds_at_length(
    data: st.DataObject, fleet: tuple[Workplace, Fleet], tmp_path_factory: pytest.TempPathFactory
) -> None:
    see_that_it_ends(data, fleet, tmp_path_factory.mktemp("run") / "run")
