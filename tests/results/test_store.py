"""A run's records: complete rounds or none, readable at any time, errors in one line."""

from __future__ import annotations

import resource
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from fed_asi.errors import RunError
from fed_asi.fleets.config import GroupConfig, RunConfig
from fed_asi.results import sql_tables, table
from fed_asi.results.lock import RunLock, is_locked, new_folder
from fed_asi.results.schema import FILE_NAME, DeviceRecord, DeviceRoundRecord, GroupRoundRecord, RoundRecord
from fed_asi.results.store import RunStore
from fed_asi.results.summary import summarise
from made_run import make

CONFIG = RunConfig(name="x", cohort=2, rounds=2, groups=(GroupConfig(name="a", count=3, budget=1000),))


@pytest.fixture
def store(tmp_path):
    with RunStore.create(tmp_path / "run", CONFIG, {"torch": "2.13"}) as made:
        yield made


def devices(round: int, count: int = 2) -> list[DeviceRoundRecord]:
    return [DeviceRoundRecord(round, i, "trained", ranks={"conv": [1, 2]}) for i in range(count)]


def asked(round: int, count: int = 2) -> RoundRecord:
    return RoundRecord(round, count, count, 0.5, 0.9)


def test_what_is_written_is_read(store):
    device = DeviceRecord(0, "a", None, 32, 4, 77)
    record = DeviceRoundRecord(
        1, 0, "out-of-memory", cause="over", budget_bytes=5, ranks={"conv": [1, 2, 3, 4]}
    )
    store.add_devices([device])
    store.add_round(asked(1, 1), [record])
    store.note("weights came from there")
    with RunStore.read(store.folder) as reader:
        assert reader.devices() == [device]
        assert reader.rounds() == [asked(1, 1)]
        assert list(reader.device_rounds(1)) == [record]
        assert reader.notes() == ["weights came from there"]
        assert reader.config() == CONFIG
        assert reader.run().versions == {"torch": "2.13"}


def test_a_round_again_replaces_it(store):
    store.add_round(asked(1, 2), devices(1, 2))
    store.add_round(asked(1, 1), devices(1, 1))
    assert [record.asked for record in store.rounds()] == [1]
    assert len(list(store.device_rounds())) == 1


def test_a_round_is_written_whole_or_not(store):
    with pytest.raises(RunError, match="records in"):
        store.add_round(asked(1), [devices(1)[0], DeviceRoundRecord(1, [], "trained")])  # type: ignore[arg-type]
    assert store.rounds() == []
    assert list(store.device_rounds()) == []


def test_exit_code_counts_rounds_and_devices(store):
    store.add_round(asked(0, 0))
    store.add_round(asked(1), devices(1))
    store.set_status("finished", weights_sha256="abc")
    assert store.missing() == ["1 of 2 rounds did not happen"]
    assert store.exit_code() == 1
    store.add_round(asked(2), devices(2, 1))
    assert store.missing() == ["round 2: 1 of 2 devices are unaccounted for"]
    store.add_round(asked(2), devices(2, 2))
    assert (store.missing(), store.exit_code()) == ([], 0)
    store.set_status("failed", cause="why")
    assert store.exit_code() == 1
    assert (store.run().cause, store.run().weights_sha256) == ("why", "abc")


def test_one_writer_many_readers(store):
    assert is_locked(store.folder)
    with pytest.raises(RunError, match="being written by another process"):
        RunStore.open(store.folder)
    with pytest.raises(RunError, match="already holds a run"):
        RunStore.create(store.folder, CONFIG)
    with RunStore.read(store.folder) as reader:
        store.add_round(asked(1), devices(1))
        assert len(reader.rounds()) == 1
        with pytest.raises(RunError):
            reader.note("no")


def test_the_lock_ends_with_its_process(tmp_path):
    code = "import os, sys, pathlib; from fed_asi.results.lock import RunLock\n"
    code += "RunLock.take(pathlib.Path(sys.argv[1])); os.kill(os.getpid(), 9)"
    assert subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False).returncode == -9
    assert not is_locked(tmp_path)
    RunLock.take(tmp_path).release()


def test_a_resumed_run_goes_on(store):
    store.add_round(asked(1), devices(1))
    store.close()
    with RunStore.open(store.folder) as again:
        again.add_round(asked(2), devices(2))
        assert len(again.rounds()) == 2


def test_folders_without_a_run(tmp_path):
    with pytest.raises(RunError, match="no run in"):
        RunStore.read(tmp_path)
    (tmp_path / FILE_NAME).write_text("not a database, but long enough to look at its first page" * 99)
    with pytest.raises(RunError, match="file is not a database"):
        RunStore.read(tmp_path)
    (tmp_path / FILE_NAME).write_bytes(b"")
    with pytest.raises(RunError, match="holds no run"):
        RunStore.read(tmp_path)


def test_a_newer_version_is_named(store):
    store.close()
    connection = sqlite3.connect(store.folder / FILE_NAME)
    connection.execute("PRAGMA user_version = 9")
    connection.close()
    with pytest.raises(RunError, match="version 9, this fed-asi reads 1"):
        RunStore.read(store.folder)


def test_a_full_disk_is_one_line_and_keeps_what_was_there(store):
    store.add_round(asked(1), devices(1))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (512 * 1024, limits[1]))  # files of this process end here
    try:
        with pytest.raises(
            RunError, match=r"records in .*run: the disk is full or failing; what was recorded"
        ):
            store.add_round(asked(2, 9000), devices(2, 9000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert [record.round for record in store.rounds()] == [1]


def refuse(*_args: object, **_named: object) -> None:
    raise PermissionError(13, "Permission denied")


def test_an_unwritable_folder_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr(Path, "mkdir", refuse)  # the tests may run as root, who may write anywhere
    with pytest.raises(RunError, match=r"cannot make .*x: Permission denied"):
        new_folder(tmp_path, "x")
    with pytest.raises(RunError, match=r"records in .*x: Permission denied"):
        RunStore.create(tmp_path / "x", CONFIG)


def test_a_run_that_can_only_be_read_immutable_is_read(store, monkeypatch):
    store.add_round(asked(1), devices(1))
    store.close()
    real, opened = sqlite3.connect, []

    def no_shared_memory(name: str, **how: object) -> sqlite3.Connection:
        opened.append(name)
        if name.endswith("mode=ro"):
            name = name.replace("run.sqlite", "not-there")
        return real(name, **how)  # type: ignore[call-overload]

    monkeypatch.setattr(sqlite3, "connect", no_shared_memory)
    with RunStore.read(store.folder) as reader:
        assert len(reader.rounds()) == 1
    assert opened[-1].endswith("immutable=1")


def test_names_of_runs(tmp_path):
    assert [new_folder(tmp_path, "x").name for _ in range(3)] == ["x", "x-2", "x-3"]
    (tmp_path / "file").touch()
    with pytest.raises(RunError, match="cannot make"):
        new_folder(tmp_path / "file", "x")


def test_reading_takes_the_file_or_its_folder(store):
    with RunStore.read(store.folder / FILE_NAME) as reader:
        assert reader.folder == Path(store.folder)


def without(folder: Path, table: str, *columns: str) -> None:
    """Make the run's file one of before these columns were added."""
    connection = sqlite3.connect(folder / FILE_NAME)
    for column in columns:
        connection.execute(f"ALTER TABLE {table} DROP COLUMN {column}")
    connection.commit()
    connection.close()


@pytest.fixture
def older(store):
    store.add_devices([DeviceRecord(i, "a", None, 32, 4, 77) for i in range(3)])
    store.add_round(RoundRecord(1, 2, 2, 0.5, 0.9, bytes_up=7), devices(1))
    store.close()
    without(store.folder, "device_rounds", "ranks", "published_bytes", "weight_bytes")
    without(store.folder, "rounds", "bytes_up", "lr")
    return store.folder


def test_a_file_of_before_a_column_is_read_with_its_default(older):
    before = (older / FILE_NAME).read_bytes()
    with RunStore.read(older) as reader:
        assert [row.ranks for row in reader.device_rounds(1)] == [{}, {}]
        assert [row.weight_bytes for row in reader.device_rounds()] == [None, None]
        assert reader.rounds() == [RoundRecord(1, 2, 2, 0.5, 0.9, bytes_up=0)]
        assert reader.select("SELECT round, bytes_up, lr FROM rounds") == [
            (1, 0, None)
        ]  # one's own queries too
        assert summarise(reader).groups[0].published_bytes is None
    assert (older / FILE_NAME).read_bytes() == before


def test_a_run_of_before_a_column_goes_on(older):
    with RunStore.open(older) as again:
        again.add_round(RoundRecord(2, 2, 2, 0.4, 0.9, bytes_up=5), devices(2))
    with RunStore.read(older) as reader:
        assert [record.bytes_up for record in reader.rounds()] == [0, 5]
        assert [row.ranks for row in reader.device_rounds()] == [{}, {}, {"conv": [1, 2]}, {"conv": [1, 2]}]


GROUPS = [GroupRoundRecord(1, "a", 3, 12, 0.5, 0.75, 0.7, 0.1), GroupRoundRecord(1, "b", 1, 4, 0.5, 0.5, 0.5)]


def test_groups_of_a_round_come_and_go_with_it(store):
    store.add_round(asked(1), devices(1), GROUPS)
    with RunStore.read(store.folder) as reader:
        assert reader.group_rounds() == GROUPS
    store.add_round(asked(1), devices(1), GROUPS[:1])
    assert store.group_rounds() == GROUPS[:1]
    store.forget_after(0)
    assert store.group_rounds() == []


def test_a_run_of_before_groups_were_judged_is_read_and_goes_on(older):
    connection = sqlite3.connect(older / FILE_NAME)
    connection.execute("DROP TABLE group_rounds")
    connection.close()
    before = (older / FILE_NAME).read_bytes()
    with RunStore.read(older) as reader:
        assert reader.group_rounds() == []
        assert summarise(reader).groups[0].asked == 2
    assert (older / FILE_NAME).read_bytes() == before
    with RunStore.open(older) as again:
        again.add_round(asked(2), devices(2), GROUPS[:1])
    with RunStore.read(older) as reader:
        assert reader.group_rounds() == GROUPS[:1]


def test_a_column_of_a_newer_program_is_left_alone(store):
    store.add_round(asked(1), devices(1))
    store.close()
    connection = sqlite3.connect(store.folder / FILE_NAME)
    connection.execute("ALTER TABLE rounds ADD COLUMN joules REAL")
    connection.close()
    with RunStore.open(store.folder) as again:
        again.add_round(asked(2), devices(2))
        assert [record.round for record in again.rounds()] == [1, 2]


def test_a_file_without_a_column_that_every_run_has_is_named(older):
    without(older, "rounds", "asked")
    for opened in (RunStore.read, RunStore.open):
        with pytest.raises(RunError, match=r"run.sqlite is not a complete run: it lacks the column asked"):
            opened(older)
    assert not is_locked(older)


def test_extreme_values_are_held_or_refused_by_name(store):
    record = DeviceRoundRecord(
        1, 0, "trained", cause="half a pair \ud800, a zero \0", num_examples=2**63 - 1, loss_after=1e308
    )
    store.add_round(asked(1, 1), [record])
    (back,) = store.device_rounds(1)
    assert (back.num_examples, back.loss_after) == (2**63 - 1, 1e308)
    assert back.cause == "half a pair ?, a zero \0"
    for number in (2**63, -(2**63) - 1, 10**5000):
        with pytest.raises(RunError, match=r"^steps is a number of \d+ bits, and the records hold 64$"):
            store.add_round(asked(2, 1), [DeviceRoundRecord(2, 0, "trained", steps=number)])
    assert len(store.rounds()) == 1
    store.note("half \udfff")
    assert store.notes() == ["half ?"]


def test_a_run_in_which_no_device_ever_trained_is_no_success(store):
    left_out = [DeviceRoundRecord(round, i, "failed", "why") for round in (1, 2) for i in (0, 1)]
    store.add_round(asked(0, 0))
    for round in (1, 2):
        store.add_round(RoundRecord(round, 2, 0, 0.5, 0.9), [r for r in left_out if r.round == round])
    store.set_status("finished")
    assert store.missing() == ["no device ever trained, of the 4 times one was asked: the model is unchanged"]
    assert store.exit_code() == 1
    assert table.lines(summarise(store))[0] == store.missing()[0]  # the report's first line
    store.add_round(asked(2, 2), devices(2, 2))
    assert (store.missing(), store.exit_code()) == ([], 0)


def test_rounds_can_be_forgotten_from_the_end(store):
    for round in (1, 2):
        store.add_round(asked(round), devices(round))
    store.forget_after(1)
    assert [record.round for record in store.rounds()] == [1]
    assert {row.round for row in store.device_rounds()} == {1}


def test_records_without_their_run_are_one_line(store):
    store._connection.execute("DELETE FROM run")
    store._connection.commit()
    store.close()
    for open_it in (RunStore.read, RunStore.open):
        with pytest.raises(RunError, match=r"run.sqlite holds no run: its first line is gone; start again"):
            open_it(store.folder)


def test_records_begin_whole_or_not_at_all(tmp_path, monkeypatch):
    """A process that is killed while it makes the tables leaves none, not some."""
    monkeypatch.setattr(sql_tables, "cell", lambda *_: pytest.fail("stopped here"))
    with pytest.raises(pytest.fail.Exception):
        RunStore.create(tmp_path / "run", CONFIG)
    with sqlite3.connect(tmp_path / "run" / FILE_NAME) as found:
        assert found.execute("SELECT count(*) FROM sqlite_master").fetchone() == (0,)
    found.close()


def test_where_there_is_no_run_those_there_are_are_named(tmp_path):
    make(tmp_path / "runs" / "demo")
    for folder in (tmp_path / "runs", tmp_path / "runs" / "dmo"):
        with pytest.raises(RunError, match=f"no run.sqlite; .*{tmp_path}/runs/demo"):
            RunStore.read(folder)
    with pytest.raises(RunError, match=r"fed-asi run FLEET\.toml makes one"):
        RunStore.read(tmp_path / "nowhere" / "x")
