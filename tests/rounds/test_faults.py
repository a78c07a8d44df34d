"""Devices lost on purpose: in the given shares, the same ones each time, recorded, and never computed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import pytest
from torch import Tensor

from fed_asi.devices.job import Job
from fed_asi.devices.reply import Reply
from fed_asi.fleets.faults import FaultsConfig
from fed_asi.results.progress import Unwatched
from fed_asi.results.schema import RoundRecord
from fed_asi.results.store import RunStore
from fed_asi.rounds.executor import LoopExecutor
from fed_asi.rounds.faults import fault_of
from fed_asi.rounds.run import conduct, recording, run_loop
from fed_asi.workplace.prepare import prepare
from runs import records, small

DRAWS = [(round, device) for round in range(1, 41) for device in range(50)]


def struck(faults: FaultsConfig, seed: int = 0) -> dict[tuple[int, int], str]:
    found = {draw: fault_of(faults, seed, *draw) for draw in DRAWS}
    return {draw: fault.outcome for draw, fault in found.items() if fault is not None}


def test_the_shares_are_those_asked_for() -> None:
    found = Counter(struck(FaultsConfig(lost=0.2, late=0.1, over_budget=0.3)).values())
    assert found["killed"] / len(DRAWS) == pytest.approx(0.2, abs=0.03)
    assert found["timeout"] / len(DRAWS) == pytest.approx(0.1, abs=0.03)
    assert found["out-of-memory"] / len(DRAWS) == pytest.approx(0.3, abs=0.03)


def test_all_or_none_are_exact_and_the_draw_is_of_seed_round_and_device_alone() -> None:
    assert struck(FaultsConfig()) == {}
    assert set(struck(FaultsConfig(late=1.0)).values()) == {"timeout"}
    assert len(struck(FaultsConfig(late=1.0))) == len(DRAWS)
    some = FaultsConfig(lost=0.3)
    assert struck(some) == struck(some) != struck(some, seed=1)


def test_a_larger_share_strikes_those_of_the_smaller_one_too() -> None:
    few, many = struck(FaultsConfig(lost=0.1)), struck(FaultsConfig(lost=0.4))
    assert few.items() < many.items()


class Counting:
    """An executor that notes whom it is asked to train."""

    parallel = 1

    def __init__(self, executor: LoopExecutor) -> None:
        self._executor = executor
        self.asked: list[tuple[int, int]] = []

    def train(
        self, jobs: Sequence[Job], tensors: Mapping[str, Tensor], sizes: Mapping[str, int] | None = None
    ) -> Iterable[Reply]:
        self.asked += [(job.round, job.partition_id) for job in jobs]
        return self._executor.train(jobs, tensors, sizes)


def test_a_run_records_who_was_lost_and_asks_only_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FED_ASI_FEATURES_DIR", str(tmp_path / "features"))
    config = small(faults={"lost": 0.3, "late": 0.2}, seed=6)
    with recording(config, tmp_path / "run", resume=False) as store:
        place = prepare(config, tmp_path / "run" / "workplace")
        executor = Counting(LoopExecutor(place, tmp_path / "run" / "devices"))
        conduct(place, store, executor, Unwatched())
        rows = list(store.device_rounds())
        rounds = store.rounds()[1:]
    expected = {
        (row.round, row.partition_id): fault_of(config.faults, 6, row.round, row.partition_id) for row in rows
    }
    assert len(rows) == 6
    assert {None, "killed"} <= {fault and fault.outcome for fault in expected.values()}
    for row in rows:
        fault = expected[row.round, row.partition_id]
        assert row.outcome == (fault.outcome if fault else "trained")
        assert row.cause == (fault.cause if fault else None)
        assert row.bytes_down
        assert (row.bytes_up is None) == (fault is not None)
    assert sorted(executor.asked) == sorted(key for key, fault in expected.items() if fault is None)
    assert [one.asked for one in rounds] == [3, 3]
    assert sum(one.trained for one in rounds) == sum(fault is None for fault in expected.values())


def test_a_round_that_loses_everyone_keeps_the_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FED_ASI_FEATURES_DIR", str(tmp_path / "features"))
    run_loop(small(faults={"over_budget": 1.0}), tmp_path / "run")
    with RunStore.read(tmp_path / "run") as store:
        assert len({one.weights_sha256 for one in store.rounds()}) == 1
        assert len(store.rounds()) == 3
    rows, _ = records(tmp_path / "run")
    assert {row["outcome"] for row in rows if "outcome" in row} == {"out-of-memory"}


class Stops(Unwatched):
    """A watcher that stops the run once its first round is recorded."""

    def round_done(self, record: RoundRecord) -> None:
        if record.round == 1:
            raise KeyboardInterrupt


@pytest.mark.slow  # whole runs, and faults are a pure function of seed and round
@pytest.mark.computes
def test_a_resumed_run_loses_the_same_devices(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FED_ASI_FEATURES_DIR", str(tmp_path / "features"))
    config = small(faults={"lost": 0.4}, rounds=3)
    run_loop(config, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        run_loop(config, tmp_path / "cut", watcher=Stops())
    run_loop(config, tmp_path / "cut", resume=True)
    assert records(tmp_path / "cut") == records(tmp_path / "whole")
    rows, _ = records(tmp_path / "whole")
    assert {"killed", "trained"} == {row["outcome"] for row in rows if "outcome" in row}
