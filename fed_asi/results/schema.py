"""The tables of a run's records, a dataclass a table: a row's columns are its fields, and dicts are JSON."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

SCHEMA_VERSION = 1


FILE_NAME = "run.sqlite"


Outcome = Literal[
    "trained",
    "out-of-memory",
    "excluded",
    "failed",
    "timeout",
    "rejected",
    "killed",
    "late",
    "left",
    "absent",
]  # the last three by the run's clock alone


Status = Literal["running", "finished", "interrupted", "failed"]


@dataclass(frozen=True, slots=True)
class RunRecord:
    """What a run was: settings, versions, and how it ended."""

    name: str
    status: Status
    config: str  # RunConfig.to_json()
    versions: dict[str, str]  # of python, torch, flwr, this package ...
    seed: int
    threads: int
    backend: str
    created_at: str  # UTC, ISO 8601
    ended_at: str | None = None
    cause: str | None = None  # of a failed or interrupted run
    weights_sha256: str | None = None  # of the last round's weights
    schema_version: int = SCHEMA_VERSION


@dataclass(frozen=True, slots=True)
class DeviceRecord:
    """One device as described by the fleet file; budgets in bytes, None is unlimited."""

    partition_id: int
    group_name: str
    budget_bytes: int | None
    batch_size: int
    micro_batch: int | None
    num_examples: int  # of its shard
    device_name: str | None = None  # its preset, where it has one
    ram_bytes: int | None = None  # what it has; None: not counted
    flash_bytes: int | None = None
    reserve_bytes: int | None = None  # of its RAM, for what is not counted
    resolution: int | None = None  # at which it trains, pixels


@dataclass(frozen=True, slots=True)
class RoundRecord:
    """One round: whom it asked, and how good the averaged model is on the server's test images."""

    round: int  # from 1; round 0 is the model before any training
    asked: int
    trained: int
    loss: float | None
    accuracy: float | None  # 0 to 1
    worst_class_accuracy: float | None = None
    lr: float | None = None
    host_seconds: float = 0.0
    bytes_up: int = 0  # devices to server
    bytes_down: int = 0
    weights_sha256: str | None = None
    sim_start_seconds: float | None = None  # on the run's clock, which starts at 0; None: no device has one
    sim_end_seconds: float | None = None
    energy_joules: float | None = None  # of all devices that say what they draw


@dataclass(frozen=True, slots=True)
class DeviceRoundRecord:
    """What one device did in one round that asked it; sizes in bytes, accuracies 0 to 1."""

    round: int
    partition_id: int
    outcome: Outcome
    cause: str | None = None  # why it was not "trained"
    policy: str | None = None  # what was done about a budget that did not fit, such as "smaller-micro-batch"
    method: str | None = None
    budget_bytes: int | None = None
    planned_bytes: int | None = None
    measured_bytes: int | None = None  # the largest step
    published_bytes: int | None = None  # the papers' count of the same step
    micro_batch: int | None = None
    ranks: dict[str, list[int]] = field(default_factory=dict)
    trained_layers: int | None = None
    num_examples: int | None = None
    steps: int | None = None
    loss_before: float | None = None
    loss_after: float | None = None
    accuracy_before: float | None = None
    accuracy_after: float | None = None
    host_seconds: float | None = None
    bytes_up: int | None = None
    bytes_down: int | None = None
    accumulator_bytes: int | None = None
    optimizer_bytes: int | None = None
    weight_bytes: int | None = None
    transient_bytes: int | None = None
    factors_bytes: int | None = None  # warm factors it keeps for its next round; 0: none
    gradient_captured: float | None = (
        None  # share of the profile's gradient energy that its plan captures, 0 to 1
    )
    twin_measured_bytes: int | None = (
        None  # of its twin: the same device without its limits, of which nothing is used
    )
    twin_loss_after: float | None = None
    twin_accuracy_after: float | None = None
    twin_cosine: float | None = None  # between the two updates, -1 to 1; None where either is none
    twin_norm_ratio: float | None = None  # the norm of its update, in norms of its twin's
    strategy_bytes: int | None = None  # copies that strategy and codec hold beside the step
    kept_bytes: int | None = (
        None  # all it keeps for its next round: warm factors, control variates, what is unsent
    )
    download_seconds: float | None = None  # simulated, as are all that follow; None: a device without a clock
    trunk_seconds: float | None = None  # of the frozen trunk, each image once an epoch
    step_seconds: float | None = None
    judging_seconds: float | None = None  # of the images held back, before and after
    upload_seconds: float | None = None
    sim_seconds: float | None = None  # all of these
    download_joules: float | None = None
    trunk_joules: float | None = None
    step_joules: float | None = None
    judging_joules: float | None = None
    upload_joules: float | None = None
    energy_joules: float | None = None  # all of these
    staleness: int | None = None  # updates made since it began; None: its round is one of all together
    began_seconds: float | None = None  # when it began, on the run's clock; None: when the round did
    ram_bytes: int | None = (
        None  # that its step needs, counted; of devices that name ram or flash, as what follows
    )
    flash_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class GroupRoundRecord:
    """How good the shared model is on all held-out images of one group's devices, after a round; 0 to 1."""

    round: int  # round 0 is the model before any training
    group_name: str
    devices: int  # those that hold images back
    num_examples: int  # of all of them
    loss: float | None = None
    accuracy: float | None = None  # over images
    device_accuracy: float | None = None  # the mean over devices, each counted once
    device_accuracy_error: float | None = None  # its standard error; None for a group of one device


TIMES = frozenset({"host_seconds", "created_at", "ended_at"})  # the only columns a repeated run may change
