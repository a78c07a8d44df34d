"""`fed-asi run`: its exit code is the run's, and what was recorded is never lost."""

from __future__ import annotations

import os
import signal

import pytest

from fed_asi.commands.main import main
from fed_asi.commands.run import backend_of
from fed_asi.errors import MissingDataError, RunError
from fed_asi.results.schema import DeviceRoundRecord, RoundRecord
from fed_asi.results.store import RunStore


@pytest.fixture(autouse=True)
def _handlers():
    """Give the process back the signal handlers that a run replaces."""
    kept = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in kept.items():
        signal.signal(number, handler)


def whole(store: RunStore) -> None:
    store.add_round(RoundRecord(1, 1, 1, 0.5, 0.9), [DeviceRoundRecord(1, 0, "trained")])
    store.set_status("finished")


def test_a_run_prints_its_table_and_where_the_report_is(fleet_file, backend, capsys, tmp_path):
    calls = backend(whole)
    assert main(["run", fleet_file, "--set", "train.lr=0.3", "--data-dir", "images"]) == 0
    out = capsys.readouterr().out
    assert "what each budget bought" in out
    assert "report: runs/small/report.html" in out
    config, folder, resume, data_dir = calls[0]
    assert (config.train.lr, str(folder), resume, str(data_dir)) == (0.3, "runs/small", False, "images")
    assert main(["run", fleet_file, "--out", "elsewhere"]) == 0
    assert (tmp_path / "elsewhere" / "small" / "report.html").exists()


def test_a_lost_round_and_an_unaccounted_device_exit_1(fleet_file, backend):
    backend(lambda store: store.set_status("finished"))
    assert main(["run", fleet_file]) == 1

    def lost_device(store):
        store.add_round(RoundRecord(1, 2, 1, 0.5, 0.9), [DeviceRoundRecord(1, 0, "trained")])
        store.set_status("finished")

    backend(lost_device)
    assert main(["run", fleet_file]) == 1


def test_five_mistakes_are_shown_at_once(fleet_file, backend, capsys):
    mistakes = ["cohort=9", "trian.lr=1", "train.lr=-1", "groups.a.budget=64 KB", "compute.threads=0"]
    words = [word for mistake in mistakes for word in ("--set", mistake)]
    assert main(["run", fleet_file, *words]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("fed-asi: 5 problems\n")
    assert len(said.err.splitlines()) == 6


def test_a_run_that_could_not_begin_leaves_its_name_free(fleet_file, backend, tmp_path, capsys):
    def missing(_store):
        raise MissingDataError("no CIFAR-10 here: three ways")

    backend(missing)
    assert main(["run", fleet_file]) == 2
    assert "no CIFAR-10 here" in capsys.readouterr().err
    assert not (tmp_path / "runs" / "small").exists()


def test_a_run_that_fails_later_is_kept_and_can_be_resumed(fleet_file, backend, tmp_path, capsys):
    def full(store):
        whole(store)
        raise RunError("the disk is full")

    backend(full)
    assert main(["run", fleet_file]) == 1
    assert "go on with: fed-asi run --resume runs/small" in capsys.readouterr().err
    calls = backend(whole)
    assert main(["run", "--resume", "runs/small"]) == 0
    assert calls[0][2] is True


def test_a_stopped_run_says_how_to_go_on(fleet_file, backend, capsys):
    def stop(_store):
        raise KeyboardInterrupt

    backend(stop)
    assert main(["run", fleet_file]) == 130
    assert "fed-asi run --resume runs/small" in capsys.readouterr().err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_a_run_as_the_user_does(fleet_file, backend, capsys, number):
    def signalled(store):
        whole(store)
        os.kill(os.getpid(), number)

    backend(signalled)
    assert main(["run", fleet_file]) == 130
    assert "stopped; go on with: fed-asi run --resume runs/small" in capsys.readouterr().err


def test_a_second_run_gets_a_folder_of_its_own_wherever_runs_are_kept(
    fleet_file, backend, monkeypatch, tmp_path
):
    monkeypatch.setenv("FED_ASI_RUNS_DIR", str(tmp_path / "kept"))
    calls = backend(whole)
    assert [main(["run", fleet_file]) for _ in range(2)] == [0, 0]
    assert [folder for _, folder, *_ in calls] == [tmp_path / "kept" / name for name in ("small", "small-2")]


def test_a_resumed_run_has_its_own_settings_but_may_move_to_another_back_end(fleet_file, backend, capsys):
    def stop(_store):
        raise KeyboardInterrupt

    backend(stop)
    assert main(["run", fleet_file, "--set", "train.lr=0.3"]) == 130
    calls = backend(whole)
    words = ["run", "--resume", "runs/small", "--ray-address", "10.0.0.1:6379", "--data-dir", "images"]
    assert main(words) == 0
    config, _, resume, data_dir = calls[0]
    assert (config.train.lr, config.compute.backend, resume, str(data_dir)) == (0.3, "loop", True, "images")
    assert config.compute.ray_address == "10.0.0.1:6379"


def test_a_resumed_run_that_fails_keeps_its_records(fleet_file, backend, capsys):
    def stop(_store):
        raise KeyboardInterrupt

    def fail(_store):
        raise RunError("the disk is full")

    backend(stop)
    main(["run", fleet_file])
    backend(fail)
    assert main(["run", "--resume", "runs/small"]) == 1
    assert "what was recorded is kept" in capsys.readouterr().err
    RunStore.read("runs/small").close()


def test_each_back_end_is_known_by_its_name():
    assert backend_of("loop").__module__ == "fed_asi.rounds.run"
    assert backend_of("flower").func.__module__ == "fed_asi.flower.simulation"


def test_a_run_in_which_no_device_ever_trained_exits_1_and_says_so_first(fleet_file, backend, capsys):
    def none(store):
        store.add_round(RoundRecord(1, 1, 0, 0.5, 0.9), [DeviceRoundRecord(1, 0, "failed", "why")])
        store.set_status("finished")

    backend(none)
    assert main(["run", fleet_file]) == 1
    said = capsys.readouterr().out
    assert "no device ever trained, of the 1 times one was asked: the model is unchanged" in said
    assert said.index("no device ever trained") < said.index("server's test images")
