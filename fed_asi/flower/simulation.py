"""A run on Flower's simulation: Ray workers on this machine, or on a cluster that is running already."""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from fed_asi.errors import RunError, first_line
from fed_asi.fleets.config import RunConfig
from fed_asi.fleets.gpu_share import gpu_share, gpus_used, workers
from fed_asi.flower import processes
from fed_asi.flower.depot import Parcels, open_depot
from fed_asi.flower.environment import set_environment
from fed_asi.flower.flower_private import quicken, simulated_nodes
from fed_asi.flower.ray_private import ACTOR_PROCESS, TEMP_DIR, quieten
from fed_asi.flower.waiting import Interrupted, Waiting
from fed_asi.flower.worker import state_folder
from fed_asi.results.progress import Unwatched, Watcher
from fed_asi.results.store import RunStore
from fed_asi.rounds.run import conduct, recording
from fed_asi.workplace.address import address_of, workplace_folder
from fed_asi.workplace.aside import aside
from fed_asi.workplace.place import Workplace
from fed_asi.workplace.prepare import prepare

if TYPE_CHECKING:  # Flower reads the environment when it is imported, so not before it is set
    from flwr.clientapp import ClientApp


_left_behind: list[tuple[set[int], str]] = []  # per simulation: processes from before it, and Ray's folder


OBJECT_STORE_BYTES = 256 * 1024**2  # messages pass through it; a fleet's tensors are a few MiB


def run_flower(
    config: RunConfig,
    folder: Path,
    *,
    resume: bool = False,
    data_dir: Path | None = None,
    weights_dir: Path | None = None,
    watcher: Watcher | None = None,
    client_app: ClientApp | None = None,
    hasty: bool = False,
) -> None:
    """Do a whole run on Flower's simulation and record it in `folder`; with `resume`, the rest of one.

    Raises FedAsiError, one line for the user, and KeyboardInterrupt; both are recorded as the run's status,
    and no process of the simulation is left behind. client_app: another one than the fleet's own, to rehearse.
    hasty: when interrupted, let the caller say so first and `leave`; an orderly end of Ray takes ten seconds.
    """
    watcher = watcher or Unwatched()
    with recording(config, folder, resume) as store:
        simulation = Simulation(config, store, watcher, client_app, hasty)
        with simulation.ending():
            place = prepare(
                config,
                workplace_folder(folder),
                data_dir=data_dir,
                weights_dir=weights_dir,
                watcher=watcher,
                found=simulation.start,
                early=True,
                after=store.last_round,
            )
            with place.going_on():
                watcher.stage("starting Flower and Ray")
                simulation.run(place)


class Simulation:
    """One simulation: Flower in a thread of its own, so that the main thread can always stop it.

    Flower, Ray and the workers start beside the preparation, most of which is one thread's or torch's work.
    """

    def __init__(
        self,
        config: RunConfig,
        store: RunStore,
        watcher: Watcher,
        client_app: ClientApp | None = None,
        hasty: bool = False,
    ) -> None:
        self._config, self._store, self._watcher = config, store, watcher
        self._client_app, self._hasty = client_app, hasty
        self._place: Workplace | None = None
        self._prepared, self._stop = threading.Event(), threading.Event()
        self._error: BaseException | None = None
        self._finished = False
        self._thread: threading.Thread | None = None
        self._before = processes.descendants()

    def start(self, sent_bytes: int = 0) -> None:
        """Start Flower and Ray, which then wait for the workplace.

        sent_bytes: of a round's tensors. Raises ConfigError where a node of a cluster has no room for them.
        """
        _left_behind.append((self._before, temporary := _ray_folder()))
        set_environment(self._store.folder / "flower", named_gpu=":" in self._config.compute.device)
        if self._config.compute.ray_address is not None:
            self._join(sent_bytes)
        self._thread = threading.Thread(
            target=self._simulate, args=(temporary,), name="simulation", daemon=True
        )
        self._thread.start()

    def _join(self, sent_bytes: int) -> None:
        """Join the cluster that is named, in a thread of its own: in this one Ray would take over its signals."""
        from fed_asi.flower.ray_start import join_cluster

        compute = self._config.compute
        arguments = backend_config(self._config, "")["init_args"]
        with aside(lambda _check: join_cluster(arguments, sent_bytes, compute.cpus_per_client)) as joined:
            joined.result()

    def run(self, place: Workplace) -> None:
        """Return when every round is done. Raises what ended the run otherwise."""
        self._place = place
        self._prepared.set()
        if self._thread is None:
            self.start(sum(tensor.nbytes for tensor in place.reference.values()))
        thread = self._thread
        while thread is not None and thread.is_alive():
            thread.join(0.1)
        if self._error is not None:
            raise self._error
        if not self._finished:
            raise RunError("the simulation ended before its last round; the log above says why")

    @contextlib.contextmanager
    def ending(self) -> Iterator[None]:
        """Leave no process of the simulation behind, however the block ends."""
        try:
            yield
        except BaseException as error:
            self._stop.set()
            if self._hasty and isinstance(error, KeyboardInterrupt):
                raise  # the caller will end this process
            if self._thread is not None:
                self._end(self._thread)
            _clean_up()
            raise
        _clean_up()

    def _end(self, thread: threading.Thread) -> None:
        """Stop in order: training under way is abandoned, and its round is repeated on resume."""
        until = time.monotonic() + 15.0
        while thread.is_alive() and time.monotonic() < until:
            processes.end_descendants(self._before, 0.2, named=ACTOR_PROCESS)
            thread.join(0.1)

    def _simulate(self, temporary: str) -> None:
        from flwr.serverapp import ServerApp
        from flwr.simulation import run_simulation

        from fed_asi.flower.client import client_app
        from fed_asi.flower.ray_start import start_ray

        quicken()
        if not os.environ.get("FED_ASI_DEBUG"):
            quieten()
        server_app = ServerApp()
        server_app.main()(lambda grid, _context: self._serve(grid))
        logging.getLogger("flwr").setLevel(log_level())
        settings = backend_config(self._config, temporary)
        if self._stop.is_set():
            return
        try:
            start_ray(settings["init_args"], lambda: processes.end_descendants(self._before))
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                run_simulation(
                    server_app=server_app,
                    client_app=self._client_app or client_app(),
                    num_supernodes=self._config.num_devices,
                    backend_config=settings,
                )
        except BaseException as error:  # the main thread raises it
            if self._error is None and not self._stop.is_set():
                self._error = first_cause(error)

    def _serve(self, grid: Any) -> None:
        from fed_asi.flower.executor import FlowerExecutor

        config = self._config
        folder = self._store.folder
        run = address_of(workplace_folder(folder), config)
        waiting, states = Waiting(self._stop.is_set, workers(config)), folder / "devices"
        try:
            with self._depot(states) as parcels:
                run = run if parcels is None else replace(run, depot=parcels.name)
                executor = FlowerExecutor(
                    grid, config.num_devices, run, waiting, states, self._store.note, simulated_nodes, parcels
                )
                executor.find_devices()
                kept = state_folder(run) if parcels is None else states
                conduct(self._workplace(), self._store, executor, self._watcher, kept)
            self._finished = True
        except Interrupted:
            pass
        except BaseException as error:
            self._error = error
            raise

    def _depot(self, states: Path) -> AbstractContextManager[Parcels | None]:
        """Provide the depot of a cluster whose machines may not see the run's folder; None on this machine alone."""
        if self._config.compute.ray_address is None:
            return contextlib.nullcontext()
        return open_depot(workplace_folder(self._store.folder), states)

    def _workplace(self) -> Workplace:
        """Return the workplace once it is prepared. Raises Interrupted if it never will be."""
        while not self._prepared.wait(0.05):
            if self._stop.is_set():
                raise Interrupted
        if self._place is None:
            raise RunError("the simulation has no workplace")
        return self._place


def log_level() -> int:
    """Return how much of Flower's log is shown: nothing, as we name failures; all with FED_ASI_DEBUG."""
    return logging.INFO if os.environ.get("FED_ASI_DEBUG") else logging.CRITICAL + 1


def backend_config(config: RunConfig, temporary: str) -> dict[str, Any]:
    """Return Flower's settings of the Ray backend; workers that die are started anew."""
    compute = config.compute
    init: dict[str, Any] = {"logging_level": "ERROR", "log_to_driver": False}
    if compute.ray_address is not None:
        init["address"] = compute.ray_address
    else:
        init |= {
            "address": "local",  # never a cluster that happens to run on this machine
            "num_cpus": workers(config) * compute.cpus_per_client,
            "num_gpus": gpus_used(config),
            "include_dashboard": False,
            "object_store_memory": OBJECT_STORE_BYTES,
            TEMP_DIR: temporary,
        }
    resources = {"num_cpus": compute.cpus_per_client, "num_gpus": gpu_share(config), "max_restarts": -1}
    return {"init_args": init, "client_resources": resources}


def leave(code: int) -> NoReturn:
    """End this process at once, with all processes of its simulations, and remove their folders."""
    sys.stdout.flush()
    sys.stderr.flush()
    with contextlib.suppress(BaseException):
        _clean_up()
    os._exit(code)


def _clean_up() -> None:
    while _left_behind:
        before, temporary = _left_behind.pop()
        processes.end_descendants(before)
        shutil.rmtree(temporary, ignore_errors=True)


def _ray_folder() -> str:
    """Return a new folder for Ray's sockets, short because a socket's path may be."""
    return tempfile.mkdtemp(prefix=f"fed-asi-{os.getpid()}-", dir="/tmp" if Path("/tmp").is_dir() else None)


def first_cause(error: BaseException) -> RunError:
    """Return the root cause of an error from Flower, in one line: its own text is the same for every cause."""
    if isinstance(error, RunError):
        return error
    while error.__cause__ is not None:
        error = error.__cause__
    return RunError(f"Flower's simulation failed: {first_line(error)}")
