"""`fed-asi study`: what it prints before, between and after the runs, and its exit codes."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fed_asi.commands import study as command
from fed_asi.commands.main import main
from fed_asi.studies.figures import Pictures
from fed_asi.studies.findings import Findings
from fed_asi.studies.ledger import study_runs
from fed_asi.studies.one_run import Ended
from study_files import STUDY, MadeUp, write_study

NO_PICTURES = Pictures((), (), (), (), ())  # drawing takes a second, and has its own tests
Put = Callable[[Callable[[str], Ended]], MadeUp]


@pytest.fixture(autouse=True)
def _handlers() -> Iterator[None]:
    """Give the process back the signal handlers that a study replaces."""
    kept = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in kept.items():
        signal.signal(number, handler)


@pytest.fixture
def workers(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Put:
    """Puts workers in place that make records up, in a folder with a study file."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("fed_asi.studies.report.draw", lambda _found: NO_PICTURES)
    write_study(tmp_path)

    def put(behave: Callable[[str], Ended] = lambda _name: Ended()) -> MadeUp:
        made = MadeUp(behave)
        monkeypatch.setattr(command, "_workers", lambda _found, _given: made)
        return made

    return put


def test_it_does_all_runs_and_writes_the_report(
    workers: Put, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = workers()
    monkeypatch.setenv("COLUMNS", "132")
    assert main(["study", "study.toml", "--jobs", "2"]) == 0
    said = capsys.readouterr()
    assert said.err.startswith("study: runs/tiny, 4 runs: 0 done, 4 to do by 2 at once, the time is unknown")
    assert said.out.endswith("report: runs/tiny/index.html\n")
    assert "against baseline, points" in said.out
    assert "fed-asi study study.toml\n" in Path("runs/tiny/results.md").read_text()
    assert len(made.asked) == 4
    assert main(["study", "study.toml"]) == 0
    assert len(made.asked) == 4
    assert "4 runs: 4 done, 0 to do" in capsys.readouterr().err


def test_gaps_exit_1_with_a_line_each_and_are_done_again_where_asked(
    workers: Put, capsys: pytest.CaptureFixture[str]
) -> None:
    workers(lambda name: Ended("no [b]memory[/b]") if name == "unlimited-seed-0" else Ended())
    assert main(["study", "study.toml"]) == 1
    assert capsys.readouterr().err.endswith(
        "1 gap; --retry repeats them\n  unlimited, seed 0: no [b]memory[/b]\n"
    )
    made = workers()
    assert main(["study", "study.toml"]) == 1
    assert made.asked == []
    assert main(["study", "study.toml", "--retry"]) == 0
    assert made.asked == ["unlimited-seed-0"]


def test_a_dry_run_starts_nothing_and_writes_nothing(
    workers: Put, capsys: pytest.CaptureFixture[str]
) -> None:
    made = workers()
    assert main(["study", "study.toml", "--dry-run", "--only", "96*"]) == 0
    listed = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in listed] == ["new", "left", "new", "left"]
    assert listed[0].split()[1:] == ["runs/tiny/runs/96-kib-seed-0", "96", "KiB,", "seed", "0"]
    assert made.asked == []
    assert not Path("runs").exists()


def test_an_interrupt_says_how_to_go_on(workers: Put, capsys: pytest.CaptureFixture[str]) -> None:
    def stop(name: str) -> Ended:
        if name == "unlimited-seed-0":
            raise KeyboardInterrupt
        return Ended()

    workers(stop)
    assert main(["study", "study.toml", "--only", "*seed-0", "--jobs", "1", "--out", "a b"]) == 130
    assert capsys.readouterr().err.endswith(
        "stopped; go on with: fed-asi study study.toml --out 'a b' --jobs 1 --only '*seed-0'\n"
    )
    made = workers()
    assert main(["study", "study.toml", "--out", "a b"]) == 0
    assert made.asked[0] == "unlimited-seed-0"


def test_a_full_disk_keeps_what_is_done_and_says_how_to_go_on(
    workers: Put, capsys: pytest.CaptureFixture[str]
) -> None:
    made = workers(lambda _name: Ended("cannot write x", full=True))
    assert main(["study", "study.toml"]) == 1
    assert "the disk is full: cannot write x\ngo on with: " in capsys.readouterr().err
    assert len(made.asked) == 1
    made = workers()
    assert main(["study", "study.toml"]) == 0
    assert len(made.asked) == 4


def test_the_report_alone_is_of_the_runs_there_are(workers: Put, capsys: pytest.CaptureFixture[str]) -> None:
    workers()
    assert main(["study", "study.toml", "--report"]) == 2
    assert "no study in runs/tiny" in capsys.readouterr().err
    assert main(["study", "study.toml", "--only", "96*"]) == 0
    assert main(["study", "study.toml", "--report", "--results", "results"]) == 0
    said = capsys.readouterr().out
    assert "report: runs/tiny/index.html\nfor documents: results/results.md\n" in said
    assert {"results.md", "results.csv"} <= {path.name for path in Path("results").iterdir()}
    assert [cell.gap for cell in study_runs("runs/tiny").cells] == [None, "not begun", None, "not begun"]


def test_a_new_title_or_baseline_counts_in_the_report_without_a_run(
    workers: Put, monkeypatch: pytest.MonkeyPatch
) -> None:
    workers()
    assert main(["study", "study.toml"]) == 0
    seen: list[Findings] = []
    monkeypatch.setattr(
        "fed_asi.studies.report.write_report", lambda found, folder, *_: seen.append(found) or [folder]
    )
    Path("study.toml").write_text(
        STUDY.replace('"Tiny"', '"New"').replace('baseline = "unlimited"', 'baseline = "96 KiB"')
    )
    assert main(["study", "study.toml", "--report"]) == 0
    assert (seen[0].study.title, seen[0].study.baseline) == ("New", "96 KiB")
    assert [cell.gap for cell in seen[0].study.cells] == [None] * 4


def test_names_are_data(workers: Put, capsys: pytest.CaptureFixture[str]) -> None:
    workers(lambda _name: Ended("[/b] \x1b[2J\n"))
    Path("study.toml").write_text(
        'name = "tiny"\nfleet = "fleet.toml"\ngrid.seed = [0]\n[[variants]]\nname = "[b] $x$ \\u001b[2Ja\\nb"'
    )
    assert main(["study", "study.toml", "--dry-run"]) == 0
    assert main(["study", "study.toml"]) == 1
    said = capsys.readouterr()
    assert said.out.count("\n") == 1
    assert "\x1b" not in said.out + said.err
    assert r"[b] $x$ \x1b[2Ja\nb, seed 0" in said.out
    assert r"[b] $x$ \x1b[2Ja\nb, seed 0: [/b] \x1b[2J" in said.err


def test_a_mistake_is_said_before_anything_is_made(workers: Put, capsys: pytest.CaptureFixture[str]) -> None:
    workers()
    Path("study.toml").write_text(STUDY.replace("train.lr", "trian.lr").replace('"unlimited"', '"x"', 1))
    assert main(["study", "study.toml"]) == 2
    assert capsys.readouterr().err.splitlines() == [
        "fed-asi: 2 problems",
        "  baseline: 'x' is not a variant of the grid;  known: 96 KiB, unlimited",
        "  trian: unknown key; did you mean train or pretrain?",
    ]
    assert main(["study", "study.toml", "--jobs", "0"]) == 2
    assert not Path("runs").exists()


def test_two_at_once_do_not_share_a_folder(workers: Put, capsys: pytest.CaptureFixture[str]) -> None:
    from fed_asi.results.lock import RunLock

    workers()
    Path("runs/tiny").mkdir(parents=True)
    lock = RunLock.take(Path("runs/tiny"))
    assert main(["study", "study.toml"]) == 2
    assert "runs/tiny is being written by another process" in capsys.readouterr().err
    lock.release()
