"""Rounds that begin before all features are there end with the same bits, also where the run is stopped between."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fed_asi.data import rows_ahead
from fed_asi.data.features import GROUP, FeatureSource, FeatureStore
from fed_asi.results.progress import Unwatched
from fed_asi.results.schema import RoundRecord
from fed_asi.rounds.run import run_loop
from fed_asi.workplace.needs import Needs, needs_of
from fed_asi.workplace.prepare import prepare
from runs import records, small

CONFIG = small(
    rounds=3,
    cohort=2,
    measure={"groups": "never"},
    groups=[{"name": "all", "count": 12, "budget": None, "batch_size": 16}],
)
ROOT = Path(__file__).parents[2]


def small_pieces(patch: pytest.MonkeyPatch) -> None:
    """Let rows be computed a group after another."""
    patch.setattr(rows_ahead, "GROUPS_EACH", 1)
    patch.setattr(rows_ahead, "cpus_here", lambda: 1)


@pytest.fixture(autouse=True)
def _profiles(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FED_ASI_PROFILES_DIR", str(tmp_path_factory.getbasetemp() / "profiles"))
    small_pieces(monkeypatch)


@dataclass(frozen=True)
class Whole:
    """The same run whose features were all there. needs: what a run by need computes, and when; rest: after round 1."""

    records: Any
    needs: Needs
    rest: Needs

    @property
    def first(self) -> set[int]:
        return {*self.needs.first.tolist()}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Whole]:
    folder = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FED_ASI_PROFILES_DIR", str(tmp_path_factory.getbasetemp() / "profiles"))
        patch.setenv("FED_ASI_FEATURES_DIR", str(folder / "features"))
        place = prepare(CONFIG, folder / "all")
        run_loop(CONFIG, folder / "run")
        yield Whole(
            records(folder / "run"), needs_of(CONFIG, place.shards), needs_of(CONFIG, place.shards, after=1)
        )


class FirstRound(Unwatched):
    """Keeps the trunk from images that round 1 does not need until it has ended; then does `ends`."""

    def __init__(
        self, patch: pytest.MonkeyPatch, first: set[int], ends: Callable[[], None] = lambda: None
    ) -> None:
        self.goes_on, self.late, self.ends = threading.Event(), 0, ends
        real = FeatureSource.computed

        def computed(source: FeatureSource, rows: Any) -> Any:
            if isinstance(rows, np.ndarray) and len(rows) == GROUP and first.isdisjoint(rows.tolist()):
                self.goes_on.wait()  # for ever, where round 1 waits for more than it needs
                self.late += 1
            return real(source, rows)

        patch.setattr(FeatureSource, "computed", computed)

    def round_done(self, record: RoundRecord) -> None:
        if record.round == 1:
            self.goes_on.set()
            self.ends()


def test_round_1_begins_with_what_it_needs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, whole: Whole
) -> None:
    monkeypatch.setenv("FED_ASI_FEATURES_DIR", str(tmp_path / "features"))
    watcher = FirstRound(monkeypatch, whole.first)
    run_loop(CONFIG, tmp_path / "run", watcher=watcher)
    assert watcher.late > 0
    assert records(tmp_path / "run") == whole.records
    assert rows_there(tmp_path / "features") == {*whole.needs.rows.tolist()}
    assert len(whole.needs.rows) < CONFIG.data.limit


def rows_there(features: Path) -> set[int]:
    """Return which rows of the training images a store has computed, not all of them."""
    (rows,) = features.glob("*.rows")
    return {*np.flatnonzero(np.load(rows / "features.npy").any((1, 2, 3))).tolist()}


@pytest.mark.parametrize("lost", [False, True])
def test_stopped_between_it_goes_on_to_the_same_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, whole: Whole, lost: bool
) -> None:
    """lost: the features are gone when it goes on."""
    monkeypatch.setenv("FED_ASI_FEATURES_DIR", str(tmp_path / "features"))

    def stop() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_loop(CONFIG, tmp_path / "run", watcher=FirstRound(monkeypatch, whole.first, stop))
    if lost:
        shutil.rmtree(tmp_path / "features")
    assert not [one for one in threading.enumerate() if one.name == "features ahead"]
    run_loop(CONFIG, tmp_path / "run", resume=True)
    assert records(tmp_path / "run") == whole.records
    if lost:  # of the rest of the rounds alone
        assert rows_there(tmp_path / "features") == {*whole.rest.rows.tolist()}
        assert len(whole.rest.rows) < len(whole.needs.rows)


class UntilWhole(Unwatched):
    """Lets no round end before the rows in a store have become an entry."""

    def __init__(self, store: FeatureStore) -> None:
        self.store = store

    def round_done(self, record: RoundRecord) -> None:
        while record.round and any(name.endswith(".rows") for name in self.store.entries()):
            time.sleep(0.01)


def test_what_one_run_left_out_the_next_computes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs of other seeds ask other devices, and share the rows; in the end all are there."""
    monkeypatch.setenv("FED_ASI_FEATURES_DIR", str(tmp_path / "features"))
    run_loop(CONFIG, tmp_path / "few")
    store = FeatureStore(tmp_path / "features")
    before = {name for name in store.entries() if name.endswith(".rows")}
    everyone = CONFIG.model_copy(update={"rounds": 1, "cohort": 12})
    run_loop(everyone, tmp_path / "all", watcher=UntilWhole(store))
    assert len(before) == 1
    assert not before & store.entries().keys()
    assert before.pop().removesuffix(".rows") in store.entries()


RUN = """
import json, os, pathlib, signal, sys
sys.path[:0] = ["tests", "tests/rounds"]
import pytest
from fed_asi.flower.simulation import run_flower
from fed_asi.rounds.run import run_loop
from test_early import CONFIG, FirstRound, small_pieces
folder, kind, first = pathlib.Path(sys.argv[1]), sys.argv[2], set(json.loads(sys.argv[3]))
with pytest.MonkeyPatch.context() as patch:
    small_pieces(patch)
    if kind == "killed":
        run_loop(CONFIG, folder, watcher=FirstRound(patch, first, lambda: os.kill(os.getpid(), signal.SIGKILL)))
    else:
        watcher = FirstRound(patch, first)
        if kind == "resumed":
            watcher.goes_on.set()
        run_flower(CONFIG, folder, resume=kind == "resumed", watcher=watcher)
        assert watcher.late > 0
"""


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_on_ray_and_after_a_kill_the_bits_are_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, whole: Whole
) -> None:
    """Its workers read rows that the server computes meanwhile; a loop that is killed goes on with workers."""

    def run(name: str, kind: str) -> int:
        monkeypatch.setenv("FED_ASI_FEATURES_DIR", str(tmp_path / f"features-{name}"))
        first = json.dumps(sorted(whole.first))
        command = [sys.executable, "-c", RUN, str(tmp_path / name), kind, first]
        return subprocess.run(command, cwd=ROOT, check=False, timeout=550).returncode

    assert run("ray", "on Ray") == 0
    assert records(tmp_path / "ray") == whole.records
    assert run("loop", "killed") == -signal.SIGKILL
    assert run("loop", "resumed") == 0
    assert records(tmp_path / "loop") == whole.records
