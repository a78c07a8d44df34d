"""Where a stopped run resumes if something of it was lost: with the same bits, or not at all."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from fed_asi.errors import RunError
from fed_asi.fleets.cohort import sample_cohort
from fed_asi.flower.simulation import run_flower
from fed_asi.results.progress import Unwatched
from fed_asi.results.store import RunStore
from fed_asi.rounds.executor import LoopExecutor
from fed_asi.rounds.run import conduct, recording, run_loop
from fed_asi.workplace.address import workplace_folder
from fed_asi.workplace.prepare import prepare
from runs import records, small

WARM = {"name": "asi-published", "layers": 1, "calibration_images": 8}  # whose factors outlive a round
CONFIG = small(rounds=4, cohort=3, method=WARM)
LAST = 3  # the last round that was recorded
AGAIN = set(sample_cohort(CONFIG.seed, LAST + 1, range(CONFIG.num_devices), CONFIG.cohort))


class CutOff(LoopExecutor):
    """Ends everything after the first reply of the round after the last."""

    def train(self, jobs, tensors, sizes=None) -> Iterator:
        for reply in super().train(jobs, tensors, sizes):
            yield reply
            if jobs[0].round == LAST + 1:
                raise SystemError("power cut")


@dataclass(frozen=True)
class Stopped:
    """A run's folder, and what the same run came to that nobody stopped."""

    folder: Path
    whole: object

    @property
    def devices(self) -> Path:
        return self.folder / "devices"

    def newest(self, partition_id: int) -> Path:
        """A device's last file of a recorded round."""
        found = sorted((self.devices / f"{partition_id:06d}").glob("round-*.pt"))
        return [path for path in found if path.stem <= f"round-{LAST:06d}"][-1]

    def resume(self) -> None:
        run_loop(CONFIG, self.folder, resume=True)

    def notes(self) -> list[str]:
        with RunStore.read(self.folder) as store:
            return [note for note in store.notes() if "resumed" in note or "fresh" in note]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Stopped:
    home = tmp_path_factory.mktemp("stopped")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FED_ASI_FEATURES_DIR", str(home / "features"))
        run_loop(CONFIG, home / "whole")
        with recording(CONFIG, home / "cut", resume=False) as store:
            place = prepare(CONFIG, workplace_folder(home / "cut"))
            states = home / "cut" / "devices"
            with pytest.raises(SystemError):
                conduct(place, store, CutOff(place, states), Unwatched(), states)
            store.set_status("running")
    return Stopped(home / "cut", records(home / "whole"))


@pytest.fixture
def stopped(made: Stopped, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Stopped:
    monkeypatch.setenv("FED_ASI_FEATURES_DIR", str(made.folder.parent / "features"))
    return Stopped(shutil.copytree(made.folder, tmp_path / "run"), made.whole)


def asked(stopped: Stopped, round: int) -> set[int]:
    with RunStore.read(stopped.folder) as store:
        return {row.partition_id for row in store.device_rounds(round) if row.outcome == "trained"}


def cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def flipped(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def test_an_unharmed_run_goes_on_with_the_same_bits(stopped: Stopped) -> None:
    stopped.resume()
    assert records(stopped.folder) == stopped.whole
    assert stopped.notes() == []


@pytest.mark.few(1)
@pytest.mark.parametrize("harm", [cut_short, flipped, Path.unlink], ids=["truncated", "flipped", "gone"])
def test_a_lost_checkpoint_is_made_again_from_the_one_before(stopped: Stopped, harm) -> None:
    harm(stopped.folder / "checkpoints" / f"round-{LAST:06d}.pt")
    stopped.resume()
    assert records(stopped.folder) == stopped.whole
    (note,) = stopped.notes()
    assert note.startswith(f"resumed after round {LAST - 1}, because what followed is incomplete: ")
    assert f"round-{LAST:06d}.pt" in note


@pytest.mark.few(1)
@pytest.mark.parametrize("harm", [cut_short, flipped, Path.unlink], ids=["truncated", "flipped", "gone"])
def test_lost_factors_of_the_last_round_are_made_again(stopped: Stopped, harm) -> None:
    device = min(asked(stopped, LAST) & AGAIN)
    harm(stopped.newest(device))
    stopped.resume()
    assert records(stopped.folder) == stopped.whole
    (note,) = stopped.notes()
    assert f"device {device} has lost its warm factors of round {LAST}: " in note


def test_factors_lost_for_good_stop_the_run_and_name_their_file(stopped: Stopped) -> None:
    device = min((asked(stopped, LAST - 1) - asked(stopped, LAST)) & AGAIN)
    path = stopped.newest(device)
    kept = path.read_bytes()
    path.unlink()
    with pytest.raises(RunError) as raised:
        stopped.resume()
    assert str(raised.value) == (
        f"{stopped.folder} cannot be resumed: device {device} has lost its warm factors of round {LAST - 1}: "
        f"no file {path}; put it back, or start again"
    )
    path.write_bytes(kept)
    stopped.resume()
    assert records(stopped.folder) == stopped.whole


def test_without_any_checkpoint_the_run_stops(stopped: Stopped) -> None:
    shutil.rmtree(stopped.folder / "checkpoints")
    with pytest.raises(RunError, match=r"cannot be resumed: no file .*; put it back, or start again"):
        stopped.resume()
    with RunStore.read(stopped.folder) as store:
        assert max(record.round for record in store.rounds()) == LAST  # nothing was thrown away


def test_round_0_needs_no_checkpoint(stopped: Stopped) -> None:
    with RunStore.open(stopped.folder) as store:
        store.forget_after(1)
    shutil.rmtree(stopped.folder / "checkpoints")
    stopped.resume()
    assert records(stopped.folder) == stopped.whole


def test_weights_that_are_not_the_recorded_ones_are_not_gone_on_with(stopped: Stopped) -> None:
    last = stopped.folder / "checkpoints" / f"round-{LAST:06d}.pt"
    with RunStore.open(stopped.folder) as store:
        store._connection.execute("UPDATE rounds SET weights_sha256 = 'other' WHERE round > 0")
        store._connection.commit()
    with pytest.raises(RunError, match=rf"{last} holds other weights than the records say"):
        stopped.resume()


def test_a_workplace_made_anew_with_other_weights_is_refused(stopped: Stopped) -> None:
    with RunStore.open(stopped.folder) as store:
        store._connection.execute("UPDATE rounds SET weights_sha256 = 'other' WHERE round = 0")
        store._connection.commit()
    with pytest.raises(RunError, match=r"other weights than the run began with .*: start again"):
        stopped.resume()


@pytest.mark.few(1)
@pytest.mark.parametrize("harm", [cut_short, Path.unlink], ids=["truncated", "gone"])
def test_factors_that_are_lost_during_a_run_stop_it(stopped: Stopped, harm) -> None:
    class Cleaner(LoopExecutor):
        def train(self, jobs, tensors, sizes=None) -> Iterator:
            yield from super().train(jobs, tensors, sizes)
            for path in sorted((folder / "devices").rglob("*.pt")) if jobs[0].round == LAST else ():
                harm(path)

    folder = stopped.folder.parent / "cleaned"
    with recording(CONFIG, folder, resume=False) as store:
        place = prepare(CONFIG, workplace_folder(folder))
        executor = Cleaner(place, folder / "devices")
        with pytest.raises(
            RunError, match=r"device \d started from fresh factors: .*; so the round is not rec"
        ):
            conduct(place, store, executor, Unwatched(), folder / "devices")
        assert max(record.round for record in store.rounds()) == LAST
        store.set_status("running")


def test_a_device_that_lost_its_own_disk_is_noted_and_the_run_goes_on(stopped: Stopped) -> None:
    folder = stopped.folder
    shutil.rmtree(folder / "devices")
    with recording(CONFIG, folder, resume=True) as store:
        place = prepare(CONFIG, workplace_folder(folder))
        conduct(
            place, store, LoopExecutor(place, folder / "devices"), Unwatched()
        )  # on machines of their own
        assert [note for note in store.notes() if "started from fresh factors: no file" in note]
        assert store.exit_code() == 0


def test_methods_without_factors_need_none(stopped: Stopped, tmp_path: Path) -> None:
    config = small(rounds=2, method={"calibration_images": 8})
    run_loop(config, tmp_path / "plain")
    with RunStore.open(tmp_path / "plain") as store:
        assert {row.factors_bytes for row in store.device_rounds()} == {0}
        before = store.run().weights_sha256
        store.forget_after(1)
    run_loop(config, tmp_path / "plain", resume=True)
    with RunStore.read(tmp_path / "plain") as store:
        assert store.run().weights_sha256 == before
        assert not [note for note in store.notes() if "resumed" in note or "fresh" in note]


def test_features_that_were_removed_are_made_again(stopped: Stopped) -> None:
    features = Path(os.environ["FED_ASI_FEATURES_DIR"])
    before = {path.name.removesuffix(".rows") for path in features.iterdir() if path.is_dir()}
    shutil.rmtree(features)
    stopped.resume()
    assert records(stopped.folder) == stopped.whole
    after = {path.name.removesuffix(".rows") for path in features.iterdir() if path.is_dir()}
    assert after == before  # of the training images those that the last rounds need


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_on_flower_lost_factors_are_made_again_too(stopped: Stopped) -> None:
    device = min(asked(stopped, LAST) & AGAIN)
    cut_short(stopped.newest(device))
    run_flower(
        small(rounds=4, cohort=3, method=WARM, compute={"backend": "flower"}), stopped.folder, resume=True
    )
    assert records(stopped.folder) == stopped.whole
    (note,) = stopped.notes()
    assert f"device {device} has lost its warm factors of round {LAST}: " in note
