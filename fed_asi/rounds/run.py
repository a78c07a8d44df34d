"""A whole run: its records are opened, its workplace prepared, its rounds done, and its end recorded."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from functools import cache
from pathlib import Path

from fed_asi.devices.pacing import paced
from fed_asi.errors import BudgetError, RunError
from fed_asi.fleets import fleet
from fed_asi.fleets.config import RunConfig
from fed_asi.fleets.device_digest import device_digest
from fed_asi.fleets.fleet import Fleet
from fed_asi.fleets.resources import Resources
from fed_asi.gpus import exact
from fed_asi.machine import threads
from fed_asi.planning.resolutions import why_none
from fed_asi.results.progress import Unwatched, Watcher
from fed_asi.results.schema import DeviceRecord
from fed_asi.results.store import RunStore
from fed_asi.results.versions import versions
from fed_asi.rounds.checkpoints import weights_digest
from fed_asi.rounds.executor import Executor, LoopExecutor
from fed_asi.rounds.loop import Rounds
from fed_asi.rounds.pooled_calibration import calibrate_on_devices
from fed_asi.texts import visible
from fed_asi.units import format_bytes
from fed_asi.workplace.address import run_fingerprint, workplace_folder
from fed_asi.workplace.place import Workplace
from fed_asi.workplace.prepare import prepare

DEVICES = "devices"  # key in a run's versions: the digest of its hardware and presence


def run_loop(
    config: RunConfig,
    folder: Path,
    *,
    resume: bool = False,
    data_dir: Path | None = None,
    weights_dir: Path | None = None,
    watcher: Watcher | None = None,
) -> None:
    """Simulate a whole run in this process and record it in `folder`; with `resume`, the rest of one.

    Raises FedAsiError, one line for the user, and KeyboardInterrupt; both are recorded as the run's status.
    """
    watcher = watcher or Unwatched()
    with recording(config, folder, resume) as store:
        place = prepare(
            config,
            workplace_folder(folder),
            data_dir=data_dir,
            weights_dir=weights_dir,
            watcher=watcher,
            early=True,
            after=store.last_round,
        )
        states = folder / "devices"
        with place.going_on():
            conduct(place, store, LoopExecutor(place, states), watcher, states)


def conduct(
    place: Workplace, store: RunStore, executor: Executor, watcher: Watcher, states: Path | None = None
) -> None:
    """Do the rounds that are not recorded yet, and record that the run is finished.

    states: where the warm factors of its devices are seen from here; None: on machines of their own.
    """
    devices = fleet.build(place.config)
    columns = cache(asdict)  # thousands of devices have the same
    store.add_devices(
        DeviceRecord(
            partition_id=d.partition_id,
            group_name=d.group,
            num_examples=len(place.shards[d.partition_id]),
            device_name=None if d.hardware is None else d.hardware.name or None,
            resolution=place.seen_by(d.partition_id).resolution,
            **columns(d.resources),
        )
        for d in devices
    )
    if not store.rounds():
        for text in (*place.notes, *_planned_ahead(place, devices)):
            store.note(text)
        for text in _without_room(place, devices):
            store.note(text)
            watcher.note(text)
    with threads(place.config.compute.threads), exact(place.device):
        if place.config.method.calibration == "federated":
            calibrate_on_devices(place, store, executor, watcher)
        tensors = Rounds(place, store, executor, watcher, states).run()
    store.set_status("finished", weights_sha256=weights_digest(tensors))


def _planned_ahead(place: Workplace, devices: Fleet) -> Iterator[str]:
    """Yield what each schedule of budgets will plan, from the server's profile; a budget too small is named.

    That is the device's own plan, or what its fleet's policy comes to where it has none.
    """
    told: set[tuple[object, ...]] = set()
    for device in devices:
        here = place.seen_by(device.partition_id)
        key = (device.group, device.phases, here.resolution)
        if not device.schedule or key in told:
            continue
        told.add(key)
        parts = []
        for start, resources in device.phases:
            try:
                attempt = next(paced(here, device.partition_id, here.plans).attempts(resources))
                policy = "" if attempt.policy is None else f" by {visible(attempt.policy)}"
                parts.append(f"{format_bytes(attempt.plan.planned_bytes)}{policy} from round {start}")
            except BudgetError as error:
                parts.append(f"no plan from round {start} ({str(error).partition(' (')[0]})")
        yield f"{device.group}, device {device.partition_id} and those like it, planned ahead: {', '.join(parts)}"


def _without_room(place: Workplace, devices: Fleet) -> Iterator[str]:
    """Yield, by group and budget, which devices cannot do a step, or cannot hold strategy and codec, by the profile."""
    found: dict[tuple[str, int, Resources, int], list[int]] = {}
    for device in devices:
        pixels = place.seen_by(device.partition_id).resolution
        for start, resources in device.phases:
            found.setdefault((device.group, start, resources, pixels), []).append(device.partition_id)
    for (group, start, resources, _), ids in found.items():
        plans = place.seen_by(ids[0]).plans
        error = plans.too_small_for_copies(resources)
        if error is None and resources.whole_device:  # such a device is left out of every round
            error = why_none(plans, resources)
        if error is not None:
            who = (
                f"device {ids[0]} has"
                if len(ids) == 1
                else f"{len(ids)} devices, the first is {ids[0]}, have"
            )
            yield f"{group}: {who} no plan from round {start} on: {error}"


@contextmanager
def recording(config: RunConfig, folder: Path, resume: bool) -> Iterator[RunStore]:
    """Give the run's store, new or opened again, and record how the block ends."""
    digest = device_digest(fleet.build(config))
    said = versions() | ({} if digest is None else {DEVICES: digest})
    store = RunStore.open(folder) if resume else RunStore.create(folder, config, said)
    with store:
        if run_fingerprint(store.config()) != run_fingerprint(config):
            raise RunError(f"{folder} holds a run of other settings: choose another name, or remove it")
        if store.run().versions.get(DEVICES) != digest:
            why = "a preset, a table or a trace has changed"
            raise RunError(f"{folder} was begun with other devices ({why}): put it back, or start again")
        store.set_status("running")
        try:
            yield store
        except KeyboardInterrupt:
            store.set_status("interrupted", cause="stopped by the user")
            raise
        except BaseException as error:
            with contextlib.suppress(RunError):  # the disk may be what failed
                store.set_status("failed", cause=str(error) or type(error).__name__)
            raise
