"""Whole runs under each strategy and codec: resumed with the same bits, counted, and with hostile devices."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import torch

from fed_asi.devices.warm_factors import load_factors
from fed_asi.errors import RunError
from fed_asi.fleets.config import RunConfig
from fed_asi.results.progress import Unwatched
from fed_asi.results.store import RunStore
from fed_asi.rounds import checkpoints
from fed_asi.rounds.executor import LoopExecutor
from fed_asi.rounds.run import conduct, recording, run_loop
from fed_asi.strategies import names
from fed_asi.workplace.address import run_fingerprint, workplace_folder
from fed_asi.workplace.place import Workplace
from fed_asi.workplace.prepare import prepare
from runs import LATER, records, small

FEWER = {"groups": [{"name": "tight", "count": 3, "budget": "24 KiB", "batch_size": 16},
                    {"name": "roomy", "count": 3, "budget": "unlimited", "batch_size": 16}],
         "method": {"layers": "any", "calibration_images": 8},
         "data": {"limit": 120, "test_limit": 32, "public": 32}, "sharding": {"minimum": 12}}  # fmt: skip
OWN = {"krum": {"hostile": 0, "keep": 2}, "norm-bound": {"max_norm": 0.01}, "trimmed-mean": {"beta": 0.34}}
STRATEGIES = [{"aggregate": {"strategy": name, **OWN.get(name, {})}} for name in names()]
CODECS = [{"upload": {"codec": name}} for name in ("float16", "int8", "top-k")]
BOTH = {"aggregate": {"strategy": "scaffold"}, "upload": {"codec": "top-k", "share": 0.2}}


def run_of(**changes: Any) -> RunConfig:
    """Return the settings of 3 rounds in which some devices train fewer layers than others."""
    return small(**{"rounds": 3, **FEWER, **changes})


@pytest.fixture(autouse=True)
def _features(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FED_ASI_FEATURES_DIR", str(tmp_path_factory.getbasetemp() / "features"))


# One case is quick, and test_base.py resumes every strategy's state; whole runs of the others are the slow suite's.
EVERY = [
    *(pytest.param(one, marks=[pytest.mark.slow], id=str(one)) for one in (*STRATEGIES, *CODECS)),
    pytest.param(BOTH, id=str(BOTH)),
]


class CutOff(LoopExecutor):
    """Ends everything after the first reply of the third round."""

    def train(self, jobs, tensors, sizes=None) -> Iterator:
        for reply in super().train(jobs, tensors, sizes):
            yield reply
            if jobs[0].round == 3:
                raise SystemError("power cut")


@pytest.mark.parametrize("changes", EVERY)
def test_killed_and_resumed_it_ends_with_the_same_bits(changes: dict, tmp_path: Path) -> None:
    config, cut = run_of(**changes), tmp_path / "cut"
    with recording(config, cut, resume=False) as store:
        place = prepare(config, workplace_folder(cut))
        with pytest.raises(SystemError):
            conduct(place, store, CutOff(place, cut / "devices"), Unwatched(), cut / "devices")
        store.set_status("running")
    shutil.copytree(cut, tmp_path / "other")
    run_loop(config, cut, resume=True)
    other = tmp_path / "other"
    with RunStore.open(other) as store:
        store.forget_after(1)  # done again from a round earlier, it must come to the same
    run_loop(config, other, resume=True)
    assert records(cut) == records(other)
    with RunStore.read(cut) as store:
        trained = {row.trained_layers for row in store.device_rounds() if row.outcome == "trained"}
        assert store.exit_code() == 0
    assert len(trained) > 1  # some devices trained more tensors than others


@pytest.mark.slow
def test_each_leads_elsewhere(tmp_path: Path) -> None:
    """No name stands for another's strategy; of 5 devices and small batches, as of 3 a trimmed mean is the median."""
    groups = [{**group, "batch_size": 4} for group in FEWER["groups"]]
    digests = {}
    for number, param in enumerate(EVERY):
        config, folder = run_of(**param.values[0], groups=groups, rounds=2, cohort=5), tmp_path / str(number)
        run_loop(config, folder)
        digests[param.id] = records(folder)[1]
    alike = [(a, b) for a, b in combinations(digests, 2) if digests[a] == digests[b]]
    assert not alike


def bytes_of(folder: Path) -> dict[str, Any]:
    """Return the largest of some columns over the devices that trained."""
    with RunStore.read(folder) as store:
        rows = [row for row in store.device_rounds() if row.outcome == "trained"]
    kinds = ("strategy_bytes", "kept_bytes", "factors_bytes", "bytes_up", "bytes_down")
    return {kind: max(getattr(row, kind) or 0 for row in rows) for kind in kinds}


def test_what_strategies_and_codecs_take_is_recorded(tmp_path: Path) -> None:
    found = {}
    for name, changes in {
        "fedavg": {}, "scaffold": {"aggregate": {"strategy": "scaffold"}}, "int8": {"upload": {"codec": "int8"}},
        "top-k": {"upload": {"codec": "top-k", "share": 0.01}},
    }.items():  # fmt: skip
        run_loop(small(rounds=2, data=FEWER["data"], **changes), tmp_path / name)
        found[name] = bytes_of(tmp_path / name)
    plain, size = found["fedavg"], 5992  # of the two layers and the head, all of which every device trains
    assert plain["strategy_bytes"] == plain["kept_bytes"] == 0
    assert found["scaffold"]["strategy_bytes"] == 3 * size
    assert found["scaffold"]["kept_bytes"] == size
    assert found["scaffold"]["bytes_up"] - plain["bytes_up"] == pytest.approx(size, abs=20)
    assert found["scaffold"]["bytes_down"] - plain["bytes_down"] == pytest.approx(size, abs=20)
    assert found["int8"]["strategy_bytes"] == size
    assert plain["bytes_up"] - found["int8"]["bytes_up"] > 0.6 * size
    assert found["top-k"]["strategy_bytes"] == 2 * size
    assert found["top-k"]["kept_bytes"] == size
    assert plain["bytes_up"] - found["top-k"]["bytes_up"] > 0.9 * size
    assert found["int8"]["bytes_down"] == plain["bytes_down"]
    assert found["top-k"]["bytes_down"] < plain["bytes_down"]  # of most weights some places alone have moved


class Told(Unwatched):
    """What a user is told before the first round."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def note(self, text: str) -> None:
        self.lines.append(text)

    def round_started(self, round: int, rounds: int, asked: int) -> None:
        self.lines.append(f"round {round}")


def test_a_budget_that_cannot_hold_them_is_named_before_the_start(tmp_path: Path) -> None:
    def planned(
        budget: object, strategy: str, **more: object
    ) -> tuple[str, int | None, int | None, str, list[str]]:
        one = [{"name": "tight", "count": 1, "budget": budget, "batch_size": 16, "micro_batch": 1, **more}]
        method = {"covers": "training", "name": "head", "calibration_images": 8}
        config = small(rounds=1, groups=one, cohort=1, method=method, aggregate={"strategy": strategy})
        folder, told = tmp_path / f"{budget}-{strategy}-{len(more)}", Told()
        run_loop(config, folder, watcher=told)
        with RunStore.read(folder) as store:
            (row,) = store.device_rounds()
            notes = store.notes()
        said = [line for line in told.lines if "no plan from round" in line]
        assert all(told.lines.index(line) < told.lines.index("round 1") for line in said)
        assert said == [note for note in notes if note.startswith("tight: ")]
        return row.outcome, row.planned_bytes, row.strategy_bytes, row.cause or "", said

    _, enough, _, _, _ = planned("unlimited", "fedavg")
    assert enough is not None
    assert planned(enough, "fedavg") == ("trained", enough, 0, "", [])
    assert (
        planned(8, "scaffold")[4] == []
    )  # too small whatever the strategy: that is a cause, as it always was
    outcome, _, _, cause, (said,) = planned(enough, "scaffold")
    assert outcome == "excluded"
    assert "of it are held by strategy and codec" in cause
    assert said == f"tight: device 0 has no plan from round 1 on: {cause}"
    outcome, more, held, _, _ = planned("unlimited", "scaffold")
    assert held
    assert (outcome, more) == ("trained", enough + held)  # what is planned is what is held
    outcome, _, _, _, (said,) = planned(
        enough + held, "scaffold", schedule=[{"round": 2, "budget": enough + held - 1}]
    )
    assert outcome == "trained"
    assert "no plan from round 2 on" in said


class Hostile(LoopExecutor):
    """Everything one device sends is huge, or of the wrong form, or says more than it did."""

    def __init__(self, place: Workplace, states: Path, what: str) -> None:
        super().__init__(place, states)
        self._what = what

    def train(self, jobs, tensors, sizes=None) -> Iterator:
        first = min(job.partition_id for job in jobs)
        for reply in super().train(jobs, tensors, sizes):
            yield self._spoiled(reply) if reply.partition_id == first else reply

    def _spoiled(self, reply):
        if self._what == "huge":
            return replace(reply, tensors={n: self._huge(t) for n, t in reply.tensors.items()})
        if self._what == "steps":
            return replace(reply, stats={**reply.stats, "steps": 10**12})
        if self._what == "missing":
            return replace(reply, tensors=dict(list(reply.tensors.items())[:-1]))
        return replace(reply, tensors={**reply.tensors, "index..more": torch.zeros(3)})

    @staticmethod
    def _huge(tensor):
        most = torch.finfo(tensor.dtype).max if tensor.is_floating_point() else torch.iinfo(tensor.dtype).max
        return torch.full_like(tensor, most)


@pytest.mark.parametrize("changes", [BOTH, pytest.param({"upload": {"codec": "int8"}}, marks=LATER)], ids=str)
@pytest.mark.parametrize("what", ["huge", "missing", "surplus"])
def test_no_device_ends_a_run(changes: dict, what: str, tmp_path: Path) -> None:
    config = run_of(**changes, rounds=1)
    with recording(config, tmp_path, resume=False) as store:
        place = prepare(config, workplace_folder(tmp_path))
        conduct(place, store, Hostile(place, tmp_path / "devices", what), Unwatched())
        ends = [row.outcome for row in store.device_rounds()]
        assert len(ends) == 3
        assert what == "huge" or ends.count("rejected") == 1
        tensors = checkpoints.load(tmp_path / "checkpoints", 1, run_fingerprint(config)).tensors
        assert all(bool(torch.isfinite(tensor).all()) for tensor in tensors.values())


@pytest.mark.few(1)
@pytest.mark.parametrize("name", ["trimmed-mean", "norm-bound"])
def test_robust_strategies_hold_against_a_huge_update(name: str, tmp_path: Path) -> None:
    config = run_of(rounds=1, aggregate={"strategy": name, **OWN.get(name, {})})
    with recording(config, tmp_path, resume=False) as store:
        place = prepare(config, workplace_folder(tmp_path))
        conduct(place, store, Hostile(place, tmp_path / "devices", "huge"), Unwatched())
        tensors = checkpoints.load(tmp_path / "checkpoints", 1, run_fingerprint(config)).tensors
    moved = [float((tensors[name] - place.reference[name]).abs().max()) for name in tensors]
    assert 0.0 < max(moved) < 0.1


def test_more_steps_than_were_asked_for_are_rejected_where_they_count(tmp_path: Path) -> None:
    for strategy, outcomes in (("fednova", ["rejected", "trained", "trained"]), ("fedavg", ["trained"] * 3)):
        config = small(rounds=1, aggregate={"strategy": strategy})
        with recording(config, tmp_path / strategy, resume=False) as store:
            place = prepare(config, workplace_folder(tmp_path / strategy))
            conduct(place, store, Hostile(place, tmp_path / strategy / "devices", "steps"), Unwatched())
            rows = list(store.device_rounds())
        assert [row.outcome for row in rows] == outcomes
        if strategy == "fednova":
            assert rows[0].cause == "it says it took 1000000000000 steps, and was asked for 1"


@pytest.mark.slow  # two whole runs
@pytest.mark.computes
def test_a_device_that_lost_its_variate_is_named_with_what_follows(tmp_path: Path) -> None:
    """On a disk of its own it is a note, and the run goes on; where the run keeps it, the run stops."""
    config = small(rounds=3, cohort=6, aggregate={"strategy": "scaffold"})

    class Forgetful(LoopExecutor):
        def train(self, jobs, tensors, sizes=None) -> Iterator:
            for path in (folder / "devices" / "000002").glob("*.pt") if jobs[0].round == 2 else ():
                path.unlink()
            yield from super().train(jobs, tensors, sizes)

    for own, folder in ((True, tmp_path / "own"), (False, tmp_path / "ours")):
        with recording(config, folder, resume=False) as store:
            place = prepare(config, workplace_folder(folder))
            states = folder / "devices"
            if own:
                conduct(place, store, Forgetful(place, states), Unwatched())
                (note,) = [text for text in store.notes() if "fresh factors" in text]
                assert note.startswith("device 2 started from fresh factors: no file ")
                assert "took the server's control variate for its own, trained uncorrected" in note
                assert store.exit_code() == 0
            else:
                with pytest.raises(RunError, match="device 2 started from fresh factors"):
                    conduct(place, store, Forgetful(place, states), Unwatched(), states)
            store.set_status("running")
    assert load_factors(tmp_path / "own" / "devices", 2, 3)


def test_the_state_is_in_the_checkpoint(tmp_path: Path) -> None:
    config = small(rounds=2, aggregate={"strategy": "fedadam"})
    run_loop(config, tmp_path)
    found = checkpoints.load(tmp_path / "checkpoints", 2, run_fingerprint(config))
    assert set(found.strategy) == {f"{letter}:{name}" for letter in "mv" for name in found.tensors}
    plain = small(rounds=1)
    run_loop(plain, tmp_path / "plain")
    assert checkpoints.load(tmp_path / "plain" / "checkpoints", 1, run_fingerprint(plain)).strategy == {}
