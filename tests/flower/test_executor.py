"""The executor on Flower, without Ray: the same bits as the loop, and every way in which a device can be lost."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from fed_asi.devices import reply as replies
from fed_asi.devices.reply import Reply
from fed_asi.errors import RunError
from fed_asi.fleets.config import RunConfig
from fed_asi.flower import messages, worker
from fed_asi.flower.executor import FlowerExecutor
from fed_asi.flower.home import begun_file
from fed_asi.flower.waiting import Interrupted
from fed_asi.results.progress import Unwatched
from fed_asi.results.schema import DeviceRoundRecord
from fed_asi.results.store import RunStore
from fed_asi.rounds.executor import LoopExecutor
from fed_asi.rounds.run import conduct, recording
from fed_asi.workplace.address import address_of
from fed_asi.workplace.place import Workplace
from fed_asi.workplace.prepare import prepare
from memory_grid import Context, Error, MemoryGrid, Message, RecordDict, brief, executor_on, run_in_memory
from runs import LATER, job, records, small

ASI = {"name": "asi-published", "layers": 1, "calibration_images": 8}  # whose factors outlive a round
FEDERATED = {**ASI, "name": "planner", "methods": ["quantized", "vanilla"], "centered": None}
PARTS = {"name": "planner", "methods": ("channels(pick='round')",), "layers": "any", "centered": None}
FIXED = {"name": "channels", "layers": 3, "centered": None}
FEDERATED |= {"calibration": "federated", "calibration_devices": 2}


def three(**changes: Any) -> RunConfig:
    """Return a run that asks all of its three devices in every round, each with few images."""
    groups = [{"name": "all", "count": 3, "budget": "unlimited", "batch_size": 8, "micro_batch": 4}]
    images = {"public": 32, "limit": 60, "test_limit": 32}
    return small(cohort=3, groups=groups, data=images, compute={"side_by_side": False}, **changes)


@pytest.fixture(autouse=True)
def _features(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FED_ASI_FEATURES_DIR", str(tmp_path_factory.getbasetemp() / "features"))
    monkeypatch.setenv("FED_ASI_PROFILES_DIR", str(tmp_path_factory.getbasetemp() / "profiles"))


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Workplace:
    folder = tmp_path_factory.mktemp("run")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FED_ASI_FEATURES_DIR", str(tmp_path_factory.getbasetemp() / "features"))
        patch.setenv("FED_ASI_PROFILES_DIR", str(tmp_path_factory.getbasetemp() / "profiles"))
        return prepare(three(rounds=1), folder / "workplace")


@pytest.mark.parametrize(
    "method",
    [
        pytest.param(ASI, id="warm factors"),
        pytest.param(FEDERATED, id="federated calibration", marks=LATER),
        pytest.param(FIXED, id="channels", marks=LATER),
        pytest.param(PARTS, id="drawn", marks=LATER),
    ],
)
def test_loop_and_flower_give_the_same_bits(method: dict[str, Any], tmp_path: Path) -> None:
    config = three(method=method)
    place = prepare(config, tmp_path / "run" / "workplace")
    with recording(config, tmp_path / "loop", resume=False) as store:
        conduct(place, store, LoopExecutor(place, tmp_path / "loop" / "devices"), Unwatched())
    (place.folder / "federated.json").unlink(missing_ok=True)  # so that both calibrate
    run_in_memory(config, place, tmp_path / "flower", MemoryGrid.of(3, seed=3))
    assert records(tmp_path / "flower") == records(tmp_path / "loop")
    assert {row["outcome"] for row in records(tmp_path / "loop")[0] if "outcome" in row} == {"trained"}


class Held:
    """Where a round's tensors are held, as the server and its workers know it. now: by key."""

    def __init__(self) -> None:
        self.now: dict[str, Mapping[str, Tensor]] = {}
        self.asked = 0

    @contextmanager
    def holding(self, tensors: Mapping[str, Tensor]) -> Iterator[str]:
        self.now["a key"] = tensors
        yield "a key"
        del self.now["a key"]

    def tensors(self, key: str) -> dict[str, Tensor]:
        self.asked += 1
        return {name: tensor.clone() for name, tensor in self.now[key].items()}


def test_tensors_that_are_held_elsewhere_give_the_same_replies(
    place: Workplace, monkeypatch: pytest.MonkeyPatch
) -> None:
    held, states = Held(), place.folder.parent / "devices"
    monkeypatch.setattr(worker, "depot", lambda _name: held)
    jobs = [job(partition_id=i) for i in range(3)]
    found = []
    for parcels in (None, held):
        run, grid = address_of(place.folder, place.config), MemoryGrid.of(3)
        executor = FlowerExecutor(grid, 3, run, brief(), states, parcels=parcels)  # type: ignore[arg-type]
        executor.find_devices()
        replies = sorted(executor.train(jobs, place.reference), key=lambda reply: reply.partition_id)
        found.append([(reply.to_json(), reply.bytes_down, reply.tensors) for reply in replies])
    (sent, down, tensors), (_, other_down, others) = found[0][1], found[1][1]
    assert [one[:2] for one in found[0]] == [one[:2] for one in found[1]]
    assert '"trained"' in sent
    assert down == other_down
    assert all(torch.equal(others[name], tensor) for name, tensor in tensors.items())
    assert (held.asked, held.now) == (3, {})


@pytest.mark.few(1)
@pytest.mark.parametrize("kind", [True, "plain"])
def test_loop_and_flower_give_the_same_twins(kind: Any, tmp_path: Path) -> None:
    groups = [
        {"name": "tight", "count": 1, "budget": "2 KiB", "batch_size": 8, "micro_batch": 4},
        {"name": "roomy", "count": 2, "budget": "unlimited", "batch_size": 8, "micro_batch": 4},
    ]
    config = three(method=ASI, measure={"twins": kind}).model_copy(
        update={"groups": small(groups=groups).groups}
    )
    place = prepare(config, tmp_path / "run" / "workplace")
    with recording(config, tmp_path / "loop", resume=False) as store:
        conduct(place, store, LoopExecutor(place, tmp_path / "loop" / "devices"), Unwatched())
    run_in_memory(config, place, tmp_path / "flower", MemoryGrid.of(3, seed=3))
    assert records(tmp_path / "flower") == records(tmp_path / "loop")
    assert None not in {row["twin_cosine"] for row in records(tmp_path / "loop")[0] if "twin_cosine" in row}


def one_round(
    place: Workplace, grid: MemoryGrid, folder: Path, **waiting: Any
) -> dict[int, DeviceRoundRecord]:
    """Do a run of one round that asks all three devices; return its rows, by device."""
    run_in_memory(place.config, place, folder / "run", grid, **waiting)
    with RunStore.read(folder / "run") as store:
        assert store.exit_code() == 0
        rows = list(store.device_rounds(1))
    assert [row.partition_id for row in rows] == [0, 1, 2]
    return {row.partition_id: row for row in rows}


def ended(row: DeviceRoundRecord | Reply) -> tuple[str, str]:
    cause = row.cause if isinstance(row, DeviceRoundRecord) else row.stats.get("cause")
    return (row.outcome, cause or "")


FAULTS = {
    "raise": ("failed", "ValueError: a device's own mistake"),
    "sys-exit": ("failed", "SystemExit: 3"),
    "garbage": ("rejected", "not a reply: it lacks 'reply'"),
    "nan": ("rejected", "holds NaN"),
    "inf": ("rejected", "holds Inf"),
    "shape": ("rejected", "has shape (2, 2, 2), not"),
    "missing": ("rejected", "missing tensor"),
    "surplus": ("rejected", "surplus tensor nobody.weight"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_its_devices_alone(
    fault: str, place: Workplace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import faulty_app

    monkeypatch.setattr(replies, "answer", replies.answer)  # which the faulty app replaces
    (tmp_path / "faults.json").write_text(json.dumps({"1:2": fault}))
    monkeypatch.setenv("FED_ASI_REHEARSAL", str(tmp_path / "faults.json"))
    rows = one_round(place, MemoryGrid.of(3, app=faulty_app.app), tmp_path)
    outcome, cause = ended(rows.pop(2))
    assert outcome == FAULTS[fault][0]
    assert FAULTS[fault][1] in cause
    assert {row.outcome for row in rows.values()} == {"trained"}


DIED = "<class 'ray.exceptions.ActorDiedError'>:<'The actor died unexpectedly before finishing this task.'>"


class Dies:
    """A node whose worker process dies, as Ray tells it. word: what its device left, None before it began."""

    def __init__(self, grid: MemoryGrid, place: Workplace, word: str | None, times: int = 10**6) -> None:
        self.grid, self.states = grid, place.folder.parent / "devices"
        self.word, self.times, self.died = word, times, 0

    def __call__(self, message: Message, context: Context) -> Message | None:
        if message.metadata.message_type == "query" or self.died >= self.times:
            return self.grid.app(message=message, context=context)
        self.died += 1
        if self.word is not None:
            job, _, _ = messages.read_job(message.content)
            begun_file(self.states, job).parent.mkdir(exist_ok=True)
            begun_file(self.states, job).write_text(self.word)
        return Message(Error(0, DIED), reply_to=message)


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("", ("killed", "its worker process died; another takes its place")),
        ("late", ("timeout", "past its deadline of 120 s; its worker was ended")),
        ("\udcff not the word", ("killed", "its worker process died; another takes its place")),
    ],
)
def test_a_worker_that_died_at_work_is_told_from_one_that_was_late(
    word: str, expected: tuple[str, str], place: Workplace, tmp_path: Path
) -> None:
    grid = MemoryGrid.of(3)
    grid.instead[grid.node_of(2)] = dies = Dies(grid, place, word.encode(errors="replace").decode())
    rows = one_round(place, grid, tmp_path)
    assert ended(rows[2]) == expected
    assert dies.died == 1  # what began is not done again
    assert rows[1].outcome == "trained"


def test_a_job_whose_worker_was_gone_before_it_began_is_sent_again(place: Workplace, tmp_path: Path) -> None:
    grid = MemoryGrid.of(3)
    grid.instead[grid.node_of(2)] = dies = Dies(grid, place, None, times=3)
    assert one_round(place, grid, tmp_path)[2].outcome == "trained"
    assert dies.died == 3


def test_a_worker_that_never_comes_back_is_given_up(place: Workplace, tmp_path: Path) -> None:
    grid = MemoryGrid.of(3)
    grid.instead[grid.node_of(2)] = dies = Dies(grid, place, None)
    assert one_round(place, grid, tmp_path, tries=4)[2].outcome == "killed"
    assert dies.died == 5


@pytest.mark.parametrize("word", ["", "late"])
def test_a_device_whose_process_ends_in_its_twin_is_asked_again_without(
    word: str, place: Workplace, tmp_path: Path
) -> None:
    twins = place.config.model_copy(
        update={"measure": place.config.measure.model_copy(update={"twins": True})}
    )
    beside = replace(place, config=twins)
    grid = MemoryGrid.of(3)
    grid.instead[grid.node_of(2)] = dies = Dies(grid, place, word, times=1)
    rows = one_round(beside, grid, tmp_path)
    assert dies.died == 1
    assert {row.outcome for row in rows.values()} == {"trained"}
    assert [row.twin_cosine for row in rows.values()] == [1.0, 1.0, None]
    with RunStore.read(tmp_path / "run") as store:
        assert [note for note in store.notes() if "twin" in note] == [
            "device 2 is asked again without its twin, as its process ended: "
            "its worker process died; another takes its place"
        ]
    alone = one_round(place, MemoryGrid.of(3), tmp_path / "alone")
    assert rows[2].loss_after == alone[2].loss_after


def test_a_deployed_device_whose_process_ends_with_a_twin_is_asked_twice(
    place: Workplace, tmp_path: Path
) -> None:
    twins = place.config.model_copy(
        update={"measure": place.config.measure.model_copy(update={"twins": True})}
    )
    grid = MemoryGrid.of(3)
    killed = replying(lambda m: Message(Error(8, "killed: out of memory: the kernel"), reply_to=m), grid)
    grid.instead[grid.node_of(2)] = killed
    rows = one_round(replace(place, config=twins), grid, tmp_path)
    assert ended(rows[2]) == ("killed", "killed: out of memory: the kernel")
    assert grid.sent.count((grid.node_of(2), "train")) == 2


def replying(answer: Callable[[Message], Message | None], grid: MemoryGrid) -> Callable[..., Message | None]:
    """Return a node that says who it is and answers a job as given."""

    def handle(message: Message, context: Context) -> Message | None:
        if message.metadata.message_type == "query":
            return grid.app(message=message, context=context)
        return answer(message)

    return handle


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (lambda m: Message(Error(8, "killed: signal 9"), reply_to=m), ("killed", "killed: signal 9")),
        (
            lambda m: Message(Error(8, "timeout: device 2 is late"), reply_to=m),
            ("timeout", "device 2 is late"),
        ),
        (
            lambda m: Message(Error(2, "RunError: no folder\n at"), reply_to=m),
            ("failed", "RunError: no folder"),
        ),
        (lambda m: Message(Error(0, None), reply_to=m), ("failed", "Flower error 0")),
        (lambda m: Message(Error(0, 5), reply_to=m), ("failed", "5")),  # type: ignore[arg-type]
        (lambda m: Message(Error(2, "x" * 10**6), reply_to=m), ("failed", "x" * 500 + "...")),
        (lambda m: Message(RecordDict(), reply_to=m), ("rejected", "not a reply: it lacks 'reply'")),
    ],
    ids=["killed", "late", "raised", "no reason", "no text", "too long", "empty"],
)
def test_what_a_deployed_device_says_of_its_end(
    answer: Callable[[Message], Message], expected: tuple[str, str], place: Workplace, tmp_path: Path
) -> None:
    grid = MemoryGrid.of(3)
    grid.instead[grid.node_of(2)] = replying(answer, grid)
    rows = one_round(place, grid, tmp_path)
    assert ended(rows.pop(2)) == expected
    assert {row.outcome for row in rows.values()} == {"trained"}


def test_a_device_that_never_replies_is_a_timeout(place: Workplace, tmp_path: Path) -> None:
    grid = MemoryGrid.of(3)
    executor = executor_on(grid, place)
    grid.instead[grid.node_of(1)] = replying(lambda _message: None, grid)
    executor.find_devices()
    brief = [job(partition_id=i, deadline_seconds=0.3) for i in (0, 1)]
    found = {reply.partition_id: ended(reply) for reply in executor.train(brief, place.reference)}
    assert found == {0: ("trained", ""), 1: ("timeout", "no reply before the round's deadline")}


def test_a_device_that_vanishes_is_unreachable(place: Workplace) -> None:
    grid = MemoryGrid.of(3)
    executor = executor_on(grid, place)
    executor.find_devices()

    def vanish(message: Message, _context: Context) -> Message:
        grid.lost.add(message.metadata.dst_node_id)
        return Message(
            Error(5, "Node Unavailable"), reply_to=message
        )  # as the SuperLink answers in its place

    grid.instead[grid.node_of(1)] = vanish
    for _ in range(2):  # while it works, and when it is asked again
        pair = [job(partition_id=i) for i in (0, 1)]
        found = {reply.partition_id: ended(reply) for reply in executor.train(pair, place.reference)}
        gone = ("failed", "device unreachable (stopped, or no heartbeat)")
        assert found == {0: ("trained", ""), 1: gone}
    grid.lost.clear()
    del grid.instead[grid.node_of(1)]
    assert [reply.outcome for reply in executor.train([job(partition_id=1)], place.reference)] == ["trained"]


def test_a_reply_is_refused_for_its_size_before_it_is_unpacked(place: Workplace, tmp_path: Path) -> None:
    def too_large(message: Message) -> Message:
        content = messages.write_reply(Reply(2, {"outcome": "trained"}, dict(place.reference)))
        content["more"] = messages.pack({"junk": place.labels.new_zeros(1 << 18)})
        return Message(content, reply_to=message)

    grid = MemoryGrid.of(3)
    grid.instead[grid.node_of(2)] = replying(too_large, grid)
    outcome, cause = ended(one_round(place, grid, tmp_path)[2])
    assert outcome == "rejected"
    assert cause.startswith("not a reply: a message of 2.")
    assert cause.endswith("MiB, and a reply may have 1.0 MiB")


def test_a_message_that_cannot_be_unpacked_costs_no_other_device_its_reply(place: Workplace) -> None:
    grid = MemoryGrid.of(3)
    executor = executor_on(grid, place, one_by_one=True)
    executor.find_devices()
    grid.broken.add(grid.node_of(0))
    trio = [job(partition_id=i) for i in (0, 1, 2)]
    found = {reply.partition_id: ended(reply) for reply in executor.train(trio, place.reference)}
    cause = "not a reply: its message cannot be unpacked: Unexpected set of `children`."
    assert found == {0: ("rejected", cause), 1: ("trained", ""), 2: ("trained", "")}


def test_where_the_superlink_is_gone_the_run_ends(place: Workplace) -> None:
    class Cut(MemoryGrid):
        def pull_messages(self, message_ids: Any) -> Any:
            raise ConnectionRefusedError("no SuperLink")

    for one_by_one in (False, True):
        with pytest.raises(ConnectionRefusedError, match="no SuperLink"):
            executor_on(Cut.of(3), place, one_by_one=one_by_one).find_devices()


def test_a_run_that_is_to_stop_stops_while_it_waits(place: Workplace) -> None:
    grid = MemoryGrid.of(3)
    stops: Iterator[bool] = iter([False] * 3)
    executor = executor_on(grid, place, stop=lambda: next(stops, True))
    executor.find_devices()
    grid.instead[grid.node_of(1)] = replying(lambda _message: None, grid)
    with pytest.raises(Interrupted):
        list(executor.train([job(partition_id=1)], place.reference))


def test_no_device_at_all_is_an_error_with_its_reason(place: Workplace) -> None:
    with pytest.raises(RunError, match=r"^no device came within 0 s$"):
        executor_on(MemoryGrid({}), place).find_devices()
    nameless = MemoryGrid({5: {}})
    with pytest.raises(RunError, match=r"within 0 s; node 5 gets no jobs: this node has no partition-id"):
        executor_on(nameless, place).find_devices()
