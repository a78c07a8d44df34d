"""What sinks receive of a run, what happens if one fails, and that sinks do not change a run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from fed_asi import sinks
from fed_asi.commands.console import OK, USER_ERROR
from fed_asi.commands.main import main
from fed_asi.results.progress import Unwatched
from fed_asi.results.sending import Sending
from fed_asi.results.store import RunStore
from made_run import make
from made_twins import with_groups


class Kept:
    """A sink that keeps what it gets."""

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder
        self.got: list[tuple[Any, ...]] = []

    def begin(self, name: str, config: str, resumed: bool) -> None:
        self.got.append(("begin", name, len(config) > 2, resumed))

    def round(self, round: int, values: Mapping[str, float]) -> None:
        self.got.append(("round", round, dict(values)))

    def end(self, finished: bool) -> None:
        self.got.append(("end", finished))


class Failing(Kept):
    def round(self, round: int, values: Mapping[str, float]) -> None:
        raise OSError("no\nnetwork")


class Noting(Unwatched):
    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return with_groups(make(tmp_path_factory.mktemp("runs") / "made"))


def watch(run: Path, watcher: Unwatched, some: Mapping[str, sinks.Sink]) -> None:
    with RunStore.read(run) as store, Sending(watcher, some, run) as sending:
        for record in store.rounds():
            sending.round_done(record)


def test_a_sink_gets_what_the_records_have(run: Path) -> None:
    sink = Kept()

    watch(run, Unwatched(), {"mine": sink})

    with RunStore.read(run) as store:
        records, devices = store.rounds(), list(store.device_rounds(4))
        groups = [one for one in store.group_rounds() if one.round == 4]
    assert sink.got[0] == ("begin", "made", True, False)
    assert [one[1] for one in sink.got[1:-1]] == [record.round for record in records]
    assert sink.got[-1] == ("end", True)
    _, _, values = sink.got[-2]
    assert values["accuracy"] == records[-1].accuracy
    assert values["outcome/trained"] == sum(one.outcome == "trained" for one in devices)
    measured = [one.measured_bytes for one in devices if one.measured_bytes is not None]
    assert values["devices/largest_measured_bytes"] == max(measured)
    assert values["devices/mean_measured_bytes"] == pytest.approx(sum(measured) / len(measured))
    assert {name for name in values if name.startswith("group/")} == {
        f"group/{one.group_name}/accuracy" for one in groups
    }
    assert "sim_end_seconds" not in values, "what is not known is not sent"


def test_a_sink_that_fails_is_left_out_and_the_others_are_not(run: Path) -> None:
    good, bad, watcher = Kept(), Failing(), Noting()

    watch(run, watcher, {"bad": bad, "good": good})

    assert watcher.notes == ["sink bad gets nothing from here on: OSError: no"]
    assert len(good.got) == 2 + 5
    assert bad.got == [("begin", "made", True, False)], "it is not even told of the end"


def test_a_run_that_fails_says_so(run: Path) -> None:
    sink = Kept()

    def fail() -> None:
        with RunStore.read(run) as store, Sending(Unwatched(), {"mine": sink}, run) as sending:
            sending.round_done(store.rounds()[0])
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert sink.got[-1] == ("end", False)


def test_nothing_is_begun_before_the_first_round(run: Path) -> None:
    sink = Kept()
    with Sending(Unwatched(), {"mine": sink}, run):
        pass
    assert sink.got == []


TINY = ["--set", "rounds=1", "--set", "cohort=2", "--set", "model.weights=none", "--backend", "loop"]
FLEET = str(Path(__file__).parents[2] / "experiments" / "fleets" / "demo.toml")


def test_a_run_sends_its_rounds_and_is_the_same(monkeypatch, tmp_path: Path) -> None:
    made: list[Kept] = []

    def mine(folder: Path) -> Kept:
        made.append(Kept(folder))
        return made[0]

    monkeypatch.setitem(sinks.SINKS, "mine", mine)
    monkeypatch.setattr(
        "fed_asi.results.report.write", lambda _folders: tmp_path
    )  # a page is not asked about here
    assert main(["run", FLEET, *TINY, "--out", str(tmp_path), "--sink", "mine"]) == OK
    assert main(["run", FLEET, *TINY, "--out", str(tmp_path)]) == OK

    assert [one[0] for one in made[0].got] == ["begin", "round", "round", "end"]
    assert made[0].folder == tmp_path / "demo" / "mine"
    digests = []
    for name in ("demo", "demo-2"):
        with RunStore.read(tmp_path / name) as store:
            digests.append(store.run().weights_sha256)
    assert digests[0] == digests[1]


def test_an_unknown_sink_leaves_no_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", FLEET, "--out", str(tmp_path), "--sink", "nowhere"]) == USER_ERROR

    assert capsys.readouterr().err.startswith("fed-asi: unknown sink 'nowhere'; known: ")
    assert not list(tmp_path.iterdir())
