"""Asynchronous updates: who is at work when, from which weights, and the result, by slow and simple oracles."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from fed_asi import strategies
from fed_asi.devices.job import Job
from fed_asi.devices.reply import Reply
from fed_asi.errors import RunError
from fed_asi.fleets import fleet
from fed_asi.fleets.config import RunConfig
from fed_asi.results.progress import Unwatched
from fed_asi.results.schema import DeviceRoundRecord, RoundRecord
from fed_asi.results.store import RunStore
from fed_asi.rounds.executor import LoopExecutor
from fed_asi.rounds.run import conduct, recording
from fed_asi.training.sgd import learning_rate
from fed_asi.workplace.place import Workplace
from fed_asi.workplace.prepare import prepare
from runs import LATER, records, small

AT_WORK, BUFFER, UPDATES = 3, 2, 6
TWO_KINDS: list[dict[str, Any]] = [
    {"name": "quick", "count": 3, "budget": "unlimited", "batch_size": 16, "device": "raspberry-pi-5"},
    {
        "name": "slow",
        "count": 4,
        "budget": "unlimited",
        "batch_size": 16,
        "device": {"preset": "stm32h743", "spread": 0.4},
    },
]
BASE: dict[str, Any] = {
    "groups": TWO_KINDS,
    "cohort": BUFFER,
    "rounds": UPDATES,
    "data": {"public": 32, "limit": 140},
    "clock": {"at_work": AT_WORK},
    "measure": {"groups": "never"},
}


# All that a device may keep: warm factors, variates, what is unsent; batteries, presence, a deadline, faults.
EVERYTHING: dict[str, Any] = {
    **BASE,
    "groups": [
        {
            **TWO_KINDS[0],
            "device": {"preset": "raspberry-pi-5", "battery_joules": 1.1, "charge_watts": 1.0},
        },
        {**TWO_KINDS[1], "presence": {"kind": "random", "share": 0.8}},
    ],
    "method": {"name": "asi-published", "layers": 1, "calibration_images": 8},
    "clock": {"at_work": AT_WORK, "deadline_seconds": 0.43, "fit": True, "staleness": 1.0},
    "aggregate": {"strategy": "scaffold"},
    "upload": {"codec": "top-k", "share": 0.2},
    "faults": {"lost": 0.1},
}


def prepared(folder: Path, settings: dict[str, Any]) -> Workplace:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FED_ASI_FEATURES_DIR", str(folder / "features"))
        return prepare(small(**settings), folder / "workplace")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Workplace:
    return prepared(tmp_path_factory.mktemp("place"), BASE)


@pytest.fixture(scope="module")
def place_of_everything(tmp_path_factory: pytest.TempPathFactory) -> Workplace:
    return prepared(tmp_path_factory.mktemp("everything"), EVERYTHING)


def run(
    place: Workplace,
    folder: Path,
    config: RunConfig,
    executor: Callable[[Workplace, Path], LoopExecutor] = LoopExecutor,
    *,
    resume: bool = False,
) -> Path:
    """Do a run in a place that was prepared for another of the same data, network and method."""
    place, states = replace(place, config=config), folder / "devices"
    with recording(config, folder, resume=resume) as store:
        conduct(place, store, executor(place, states), Unwatched(), states)
    return folder


@pytest.fixture(scope="module")
def made(place: Workplace, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of six updates."""
    return run(place, tmp_path_factory.mktemp("made") / "run", small(**BASE))


@pytest.fixture(scope="module")
def whole(place_of_everything: Workplace, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with everything that nobody stopped."""
    return run(place_of_everything, tmp_path_factory.mktemp("whole") / "run", small(**EVERYTHING))


def read(folder: Path) -> tuple[list[RoundRecord], list[DeviceRoundRecord]]:
    with RunStore.read(folder) as store:
        assert store.exit_code() == 0
        return store.rounds()[1:], list(store.device_rounds())


def ends(row: DeviceRoundRecord) -> float:
    assert row.began_seconds is not None
    assert row.sim_seconds is not None
    return row.began_seconds + row.sim_seconds


def test_replies_make_updates_in_the_order_in_which_they_come(made: Path) -> None:
    rounds, rows = read(made)
    replies = sorted(
        (row for row in rows if row.outcome == "trained"), key=lambda r: (ends(r), r.partition_id)
    )
    assert [row.round for row in replies] == [1 + i // BUFFER for i in range(BUFFER * UPDATES)]
    assert [one.sim_end_seconds for one in rounds] == [ends(row) for row in replies[BUFFER - 1 :: BUFFER]]
    assert [one.sim_start_seconds for one in rounds] == [0.0] + [one.sim_end_seconds for one in rounds[:-1]]
    assert [one.trained for one in rounds] == [BUFFER] * UPDATES
    assert [one.asked for one in rounds] == [BUFFER] * (UPDATES - 1) + [BUFFER + AT_WORK - 1]


def test_every_place_at_work_is_taken_as_soon_as_it_is_free(made: Path) -> None:
    _, rows = read(made)
    begins = sorted(row.began_seconds for row in rows if row.began_seconds is not None)
    freed = sorted(ends(row) for row in rows if row.outcome == "trained")
    assert begins == [0.0] * AT_WORK + freed[:-1]  # the last reply ends the run
    per_device: dict[int, float] = {}
    for row in sorted(rows, key=lambda one: one.began_seconds or 0.0):
        assert row.began_seconds is not None
        assert row.began_seconds >= per_device.get(row.partition_id, 0.0)  # nobody is at work twice at a time
        per_device[row.partition_id] = ends(row)


def test_staleness_counts_the_updates_made_since_a_device_began(made: Path) -> None:
    rounds, rows = read(made)
    for row in rows:
        assert row.began_seconds is not None
        made_by_then = sum((one.sim_end_seconds or 0.0) <= row.began_seconds for one in rounds)
        assert row.staleness == row.round - 1 - made_by_then
    assert max(row.staleness or 0 for row in rows) > 2  # older than the checkpoints that every run keeps


def test_the_weights_are_those_of_the_papers_algorithm_written_out(
    place: Workplace, made: Path, tmp_path: Path
) -> None:
    """FedBuff by hand: every device's move from what it was sent, damped, summed in float64."""
    rounds, rows = read(made)
    config, devices = place.config, fleet.build(place.config)
    train = config.train
    versions: list[Mapping[str, Tensor]] = [place.reference]
    for one in rounds:
        now = {name: tensor.double() for name, tensor in versions[-1].items()}
        moved = {name: torch.zeros_like(tensor) for name, tensor in now.items()}
        counted = [row for row in rows if row.round == one.round and row.outcome == "trained"]
        examples = sum(row.num_examples or 0 for row in counted)
        for row in counted:
            number = row.round - (row.staleness or 0)
            lr = learning_rate(train.lr, train.final_lr_ratio, train.lr_schedule, number, config.rounds)
            job = Job(number, row.partition_id, devices[row.partition_id].resources, lr)
            (reply,) = LoopExecutor(place, tmp_path).train([job], versions[number - 1])
            share = (row.num_examples or 0) / examples / (1.0 + (row.staleness or 0)) ** 0.5
            for name, tensor in reply.tensors.items():
                moved[name] += share * (tensor.double() - versions[number - 1][name].double())
        versions.append({name: (now[name] + moved[name]).float() for name in now})
    (kept,) = [torch.load(made / "checkpoints" / f"round-{UPDATES:06d}.pt")["tensors"]]
    for name, tensor in kept.items():
        assert torch.allclose(tensor, versions[-1][name], rtol=0.0, atol=1e-6), name
    assert any(not torch.equal(kept[name], place.reference[name]) for name in kept)


def test_who_is_at_work_when_the_run_ends_is_said_and_counted(made: Path) -> None:
    rounds, rows = read(made)
    left = [row for row in rows if row.outcome != "trained"]
    assert [(row.round, row.outcome, row.cause) for row in left] == [
        (UPDATES, "late", "the run ended while it was at work")
    ] * (AT_WORK - 1)
    for row in left:
        assert ends(row) == pytest.approx(rounds[-1].sim_end_seconds)
        assert row.bytes_up == 0
        assert row.host_seconds is None
    assert sum(one.energy_joules or 0.0 for one in rounds) == pytest.approx(
        sum(row.energy_joules or 0.0 for row in rows)
    )


def test_one_at_a_time_is_a_cohort_of_one(place: Workplace, tmp_path: Path) -> None:
    """With one place at work and updates of one reply nothing is stale, and nobody waits: rounds as they were."""
    own = {**BASE, "cohort": 1, "rounds": 3}
    run(place, tmp_path / "buffered", small(**{**own, "clock": {"at_work": 1}}))
    run(place, tmp_path / "rounds", small(**{**own, "clock": {}}))
    (buffered, weights), (rounds, same) = records(tmp_path / "buffered"), records(tmp_path / "rounds")
    assert weights == same
    for left, right in zip(buffered, rounds, strict=True):
        own_columns = {"staleness", "began_seconds"}
        assert {k: v for k, v in left.items() if k not in own_columns} == {
            k: v for k, v in right.items() if k not in own_columns
        }
        assert left.get("staleness") in {None, 0}


def test_who_has_no_plan_counts_for_nothing_and_an_update_waits_for_those_who_train(
    place: Workplace, tmp_path: Path
) -> None:
    own = [{"partition_id": one, "budget": 16} for one in (0, 1, 3)]
    rounds, rows = read(run(place, tmp_path, small(**{**BASE, "rounds": 3, "devices": own})))
    assert [one.trained for one in rounds] == [BUFFER] * 3
    assert {row.partition_id for row in rows if row.outcome == "excluded"} <= {0, 1, 3}
    assert any(row.outcome == "excluded" for row in rows)
    assert max(Counter((row.round, row.partition_id) for row in rows).values()) == 1


def test_an_update_is_made_of_fewer_where_nobody_else_can_be_asked(place: Workplace, tmp_path: Path) -> None:
    own = [{"partition_id": one, "budget": 16} for one in range(6)]
    rounds, _ = read(run(place, tmp_path, small(**{**BASE, "rounds": 2, "devices": own})))
    assert [(one.asked, one.trained) for one in rounds] == [(7, 1)] * 2
    assert rounds[1].weights_sha256 != rounds[0].weights_sha256


NIGHT = {"kind": "daily", "from_hour": 1.0, "until_hour": 5.0}


def test_who_comes_takes_a_place_that_is_free(place: Workplace, tmp_path: Path) -> None:
    """At midnight one device is there; the others come at one o'clock."""
    asleep = [{"partition_id": one, "budget": "unlimited", "presence": NIGHT} for one in range(1, 7)]
    rounds, rows = read(run(place, tmp_path, small(**{**BASE, "rounds": 2, "devices": asleep})))
    first = min(rows, key=lambda row: row.began_seconds or 0.0)
    assert (first.partition_id, first.began_seconds) == (0, 0.0)
    begins = sorted(row.began_seconds or 0.0 for row in rows)
    assert begins[:4] == [0.0] + [3600.0] * 3
    assert rounds[0].trained == BUFFER


def test_a_fleet_that_has_gone_ends_the_run_by_name(place: Workplace, tmp_path: Path) -> None:
    empty = {"preset": "raspberry-pi-5", "battery_joules": 1e-3, "charge_watts": 0.0}
    groups = [{**TWO_KINDS[0], "count": 7, "device": empty}]
    with pytest.raises(
        RunError, match=r"no device is present after \d+ simulated seconds, and none will come"
    ):
        run(place, tmp_path, small(**{**BASE, "groups": groups, "clock": {"at_work": 2}}))


class Noting(LoopExecutor):
    """Notes which jobs are computed together, and ends everything in the middle of one of those."""

    def __init__(self, *given: Any, asked: list[list[Job]] | None = None, stop: int | None = None) -> None:
        super().__init__(*given)
        self._asked = [] if asked is None else asked
        self._stop = stop

    def train(
        self, jobs: Sequence[Job], tensors: Mapping[str, Tensor], sizes: Mapping[str, int] | None = None
    ) -> Iterator[Reply]:
        self._asked.append(list(jobs))
        for reply in super().train(jobs, tensors, sizes):
            yield reply
            if len(self._asked) == self._stop:
                raise SystemError("power cut")


@pytest.mark.parametrize("stop", [3, *(pytest.param(one, marks=LATER) for one in (1, 5))])
def test_a_run_stopped_while_devices_compute_goes_on_with_the_same_bits(
    place_of_everything: Workplace, whole: Path, tmp_path: Path, stop: int
) -> None:
    config = small(**EVERYTHING)
    with pytest.raises(SystemError):
        run(place_of_everything, tmp_path, config, partial(Noting, stop=stop))
    with RunStore.read(tmp_path) as store:
        assert len(store.rounds()) - 1 < UPDATES
    run(place_of_everything, tmp_path, config, resume=True)
    assert records(tmp_path) == records(whole)


def test_what_is_computed_together_began_with_the_same_weights(place: Workplace, tmp_path: Path) -> None:
    asked: list[list[Job]] = []
    run(place, tmp_path, small(**BASE), partial(Noting, asked=asked))
    assert all(len({job.round for job in jobs}) == 1 for jobs in asked)
    assert len(asked[0]) == AT_WORK  # all that began at once
    assert [job.check for jobs in asked for job in jobs].count(True) == 1


def test_a_run_whose_older_weights_are_lost_says_so(place: Workplace, made: Path, tmp_path: Path) -> None:
    shutil.copytree(made, tmp_path / "run")
    with RunStore.open(tmp_path / "run") as store:
        store.forget_after(UPDATES - 1)
    folder = tmp_path / "run" / "checkpoints"
    begun = torch.load(folder / f"round-{UPDATES - 1:06d}.pt")["begun"]
    oldest = min(one["round"] for one in begun) - 1
    assert oldest < UPDATES - 2
    (folder / f"round-{oldest:06d}.pt").unlink()
    with pytest.raises(RunError, match=f"cannot be resumed: no file .*round-{oldest:06d}.pt"):
        run(place, tmp_path / "run", small(**BASE), resume=True)


def test_what_nobody_needs_any_more_is_removed(made: Path) -> None:
    """The files of the last two updates, and those that devices at work at either began from."""
    _, rows = read(made)
    needed = {row.round - (row.staleness or 0) - 1 for row in rows if row.round == UPDATES}
    there = {int(path.stem.partition("-")[2]) for path in (made / "checkpoints").glob("*.pt")}
    assert there == {UPDATES, UPDATES - 1} | needed
    assert len(there) < UPDATES + 1 - min(needed)  # not all since the oldest


OWN_KEYS: dict[str, dict[str, Any]] = {"norm-bound": {"max_norm": 0.5}, "krum": {"hostile": 0}}


@pytest.mark.slow
@pytest.mark.computes
@pytest.mark.parametrize("strategy", strategies.names())
def test_every_strategy_takes_stale_updates(place: Workplace, strategy: str, tmp_path: Path) -> None:
    own = {"strategy": strategy, **OWN_KEYS.get(strategy, {})}
    rounds, rows = read(run(place, tmp_path, small(**{**BASE, "cohort": 3, "rounds": 3, "aggregate": own})))
    assert len({one.weights_sha256 for one in rounds}) == 3
    assert any(row.staleness for row in rows if row.outcome == "trained")
    assert not [row.cause for row in rows if row.outcome == "rejected"]


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.filterwarnings("ignore")  # Flower's own imports warn
def test_updates_of_replies_are_the_same_on_flower(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fed_asi.flower.simulation import run_flower

    monkeypatch.setenv("FED_ASI_FEATURES_DIR", str(tmp_path / "features"))
    run_flower(small(**EVERYTHING, compute={"backend": "flower"}), tmp_path / "flower")
    assert records(tmp_path / "flower") == records(whole)
