"""What a worker process keeps between messages: the workplaces that it has opened, and its thread count."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from fed_asi.devices.edge import readable
from fed_asi.devices.job import Job
from fed_asi.errors import RunError
from fed_asi.flower.depot import Depot
from fed_asi.flower.home import Home, HomeFolder
from fed_asi.workplace.address import WORKPLACE_DIR, RunAddress
from fed_asi.workplace.afar import open_afar
from fed_asi.workplace.features_again import Sources
from fed_asi.workplace.opening import open_workplace, prepared_for
from fed_asi.workplace.place import Workplace

STATE_DIR = "FED_ASI_STATE_DIR"


GRACE_SECONDS, GRACE_SHARE = 3.0, 0.1  # so that a step that began in time can finish


LATE = 75  # exit code of a worker that ends itself because its device hangs


_open: dict[RunAddress, Workplace] = {}
_depots: dict[str, Depot] = {}


def workplace(run: RunAddress) -> Workplace:
    """Return the run's workplace, opened by the first message of this process and kept.

    The thread count is set each time, as worker processes are shared and it decides the last bits. It stays set, as the
    process is ours and the next thing to run in it is another message.
    Raises RunError where the folder is missing or was prepared for other settings.
    """
    if run not in _open:
        _open.clear()  # one run at a time: a workplace holds a network
        folder = folder_of(run)
        place = (
            open_afar(depot(run.depot), folder)
            if run.depot
            else open_workplace(folder, opened=Sources.open_rows)
        )
        if prepared_for(place.folder) != run.fingerprint:
            raise RunError(f"{place.folder} was prepared for other settings than this run's")
        _open[run] = place
    place = _open[run]
    torch.set_num_threads(place.config.compute.threads)
    return place


def depot(name: str) -> Depot:
    """Return what the server's machine has for this one. Raises RunError where it is not reached."""
    if name not in _depots:
        _depots.clear()
        _depots[name] = Depot.named(name)
    return _depots[name]


def home(run: RunAddress) -> Home | None:
    """Return where a device's state is kept besides Flower's, and its marks; None: nowhere."""
    if run.depot:
        return depot(run.depot)
    folder = state_folder(run)
    return None if folder is None else HomeFolder(folder)


def folder_of(run: RunAddress) -> Path:
    """Return where this machine sees the workplace: under FED_ASI_WORKPLACE_DIR where that is set."""
    shared = os.environ.get(WORKPLACE_DIR)
    return Path(shared) / run.folder if shared else Path(run.folder)


def state_folder(run: RunAddress) -> Path | None:
    """Return where devices on this machine keep warm factors beside Flower's state; None keeps none there."""
    own = os.environ.get(STATE_DIR)
    if own:
        return Path(own)
    return None if os.environ.get(WORKPLACE_DIR) else Path(run.folder).parent / "devices"


OWN = {
    "budget": "budget_bytes",
    "ram": "ram_bytes",
    "flash": "flash_bytes",
}  # what a node may be started with


def within_own_limits(job: Job, node_config: Mapping[str, Any]) -> Job:
    """Return the job with the device's own budget, RAM and flash where they are smaller than those asked for."""
    held: dict[str, int] = {}
    for key, name in OWN.items():
        if key in node_config:
            own, asked = whole_number(node_config, key, "bytes"), getattr(job.resources, name)
            held[name] = own if asked is None else min(own, asked)
    changes: dict[str, Any] = held
    return replace(job, resources=replace(job.resources, **changes)) if held else job


def whole_number(node_config: Mapping[str, Any], key: str, unit: str) -> int:
    """Return a number that a node was started with. Raises RunError for what is no whole number from 0 up."""
    value = node_config[key]
    text = str(value).strip()
    if isinstance(value, (int, str)) and text.isascii() and text.isdigit() and len(text) < 19:
        return int(text)
    given = f"this node's {key} is {readable(repr(value))}, which is not a number of {unit}"
    raise RunError(f"{given}: start it with --node-config '{key}=0 ...'")


@contextmanager
def at_work(run: RunAddress, job: Job) -> Iterator[None]:
    """Mark this device as being at work, and end this process if it exceeds its deadline by a grace period.

    A hanging device cannot be asked to stop, and would block its worker for the rest of the run. By the mark, whoever
    finds this process gone can tell the device that was at work from those that it never started.
    """
    found = home(run)
    if found is not None:
        found.begin(job)
    timer = threading.Timer(_patience(job.patience_seconds), _end, (found, job))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        if found is not None:
            found.clear(job)


def _patience(seconds: float) -> float:
    return min(seconds * (1.0 + GRACE_SHARE) + GRACE_SECONDS, threading.TIMEOUT_MAX)


def _end(found: Home | None, job: Job) -> None:
    try:
        if found is not None:
            found.late(job)
    finally:
        os._exit(LATE)
