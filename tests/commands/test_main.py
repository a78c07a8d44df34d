"""The command line: exit codes, one line an error, no traceback."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from fed_asi.commands import main
from fed_asi.commands import run as run_command
from fed_asi.errors import MissingDataError, RunError
from fed_asi.results.schema import DeviceRoundRecord, RoundRecord
from fed_asi.results.store import RunStore
from made_run import make

FLEET = """
name = "small"
rounds = 1
cohort = 1
[[groups]]
name = "a"
count = 1
budget = "64 KiB"
[compute]
backend = "loop"
"""


@pytest.fixture
def fleet_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "fleet.toml").write_text(FLEET)
    return "fleet.toml"


def backend(monkeypatch, behave):
    """Put a backend in place that records one round, then behaves."""
    calls = []

    def run(config, folder, *, resume, data_dir, weights_dir, watcher):
        calls.append((config, folder, resume, data_dir))
        store = RunStore.open(folder) if resume else RunStore.create(folder, config)
        with store:
            behave(store)

    monkeypatch.setattr(run_command, "backend_of", lambda _name: run)
    return calls


def whole(store: RunStore) -> None:
    store.add_round(RoundRecord(1, 1, 1, 0.5, 0.9), [DeviceRoundRecord(1, 0, "trained")])
    store.set_status("finished")


def test_a_run_prints_its_table_and_where_the_report_is(fleet_file, monkeypatch, capsys, tmp_path):
    calls = backend(monkeypatch, whole)
    assert main.main(["run", fleet_file, "--set", "train.lr=0.3", "--data-dir", "images"]) == 0
    out = capsys.readouterr().out
    assert "what each budget bought" in out
    assert "report: runs/small/report.html" in out
    config, folder, resume, data_dir = calls[0]
    assert (config.train.lr, str(folder), resume, str(data_dir)) == (0.3, "runs/small", False, "images")
    assert main.main(["run", fleet_file, "--out", "elsewhere"]) == 0
    assert (tmp_path / "elsewhere" / "small" / "report.html").exists()


def test_a_lost_round_and_an_unaccounted_device_exit_1(fleet_file, monkeypatch):
    backend(monkeypatch, lambda store: store.set_status("finished"))
    assert main.main(["run", fleet_file]) == 1

    def lost_device(store):
        store.add_round(RoundRecord(1, 2, 1, 0.5, 0.9), [DeviceRoundRecord(1, 0, "trained")])
        store.set_status("finished")

    backend(monkeypatch, lost_device)
    assert main.main(["run", fleet_file]) == 1


def test_five_mistakes_are_shown_at_once(fleet_file, monkeypatch, capsys):
    mistakes = ["cohort=9", "trian.lr=1", "train.lr=-1", "groups.a.budget=64 KB", "compute.threads=0"]
    words = [word for mistake in mistakes for word in ("--set", mistake)]
    assert main.main(["run", fleet_file, *words]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("fed-asi: 5 problems\n")
    assert len(said.err.splitlines()) == 6


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["run", "nothing.toml"], "fed-asi: no file nothing.toml"),
        (["run"], "fed-asi: run: give a fleet file, or --resume RUN"),
        (["run", "fleet.toml", "--resume", "x"], "fed-asi: run: --resume takes the settings of the run"),
        (["run", "--resume", "x"], "fed-asi: no run in x"),
        (["report", "nowhere"], "fed-asi: no run in nowhere"),
        (["compare", "a", "b"], "fed-asi: no run in a"),
        (["run", "fleet.toml", "--out", "fleet.toml"], "fed-asi: cannot make fleet.toml/small"),
    ],
)
def test_user_errors_are_one_line_and_exit_2(fleet_file, capsys, words, expected):
    assert main.main(words) == 2
    said = capsys.readouterr().err
    assert said.startswith(expected)
    assert len(said.splitlines()) == 1


def test_a_run_that_could_not_begin_leaves_its_name_free(fleet_file, monkeypatch, tmp_path, capsys):
    def missing(_store):
        raise MissingDataError("no CIFAR-10 here: three ways")

    backend(monkeypatch, missing)
    assert main.main(["run", fleet_file]) == 2
    assert "no CIFAR-10 here" in capsys.readouterr().err
    assert not (tmp_path / "runs" / "small").exists()


def test_a_run_that_fails_later_is_kept_and_can_be_resumed(fleet_file, monkeypatch, tmp_path, capsys):
    def full(store):
        whole(store)
        raise RunError("the disk is full")

    backend(monkeypatch, full)
    assert main.main(["run", fleet_file]) == 1
    assert "go on with: fed-asi run --resume runs/small" in capsys.readouterr().err
    calls = backend(monkeypatch, whole)
    assert main.main(["run", "--resume", "runs/small"]) == 0
    assert calls[0][2] is True


def test_a_stopped_run_says_how_to_go_on(fleet_file, monkeypatch, capsys):
    def stop(_store):
        raise KeyboardInterrupt

    backend(monkeypatch, stop)
    assert main.main(["run", fleet_file]) == 130
    assert "fed-asi run --resume runs/small" in capsys.readouterr().err


def test_our_own_mistakes_are_one_line_with_the_details_in_a_file(fleet_file, monkeypatch, capsys):
    def mistake(_store):
        raise ZeroDivisionError("seven")

    backend(monkeypatch, mistake)
    assert main.main(["run", fleet_file]) == 1
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.startswith("fed-asi: a mistake of this program: ZeroDivisionError: seven; details in ")
    details = Path(said.rpartition(" ")[2])
    assert "Traceback" in details.read_text()
    details.unlink()


def test_report_and_compare(tmp_path, capsys):
    a, b = make(tmp_path / "a"), make(tmp_path / "b", seed=1)
    assert main.main(["report", str(a), str(b), "--out", str(tmp_path / "page.html")]) == 0
    assert main.main(["compare", str(a), str(a)]) == 0
    assert main.main(["compare", str(a), str(b)]) == 1
    assert "first difference: round 1, device 1, accuracy_before" in capsys.readouterr().out


def test_the_first_word_of_help_costs_no_torch():
    code = "import sys; from fed_asi.commands.main import main\ntry: main(['run', '--help'])\nexcept SystemExit: pass\n"
    code += "assert not {'torch', 'flwr', 'ray', 'matplotlib'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)
