"""One fleet of containers under test: started, watched, read, and removed with everything it created."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import time
import urllib.request
import uuid
from pathlib import Path

from fed_asi.commands.compose_file import IMAGE, compose_text
from fed_asi.fleets.file import load_config
from fed_asi.results.schema import DeviceRoundRecord
from fed_asi.results.store import RunStore
from ports import free_port

ROOT = Path(__file__).parents[2]
# Boards of a preset, each held to its RAM and flash, and one that has too little of it.
BOARDS = """
name = "compose"
seed = 0
rounds = 5
cohort = 2

[model]
name = "tiny"
weights = "public"
resolution = 32

[data]
source = "digits"
public = 300

[method]
name = "planner"
layers = 4

[[groups]]
name = "board"
count = 1
budget = "unlimited"
device = "stm32f746"
ram = "device"
flash = "device"
reserve = "40 KiB"

[[groups]]
name = "too small"
count = 1
budget = "unlimited"
ram = "16 KiB"
"""
FLEET = ROOT / "experiments" / "fleets" / "compose.toml"
CONSTANT = (
    '\n[train]\nlr_schedule = "constant"\n'  # so that a round's weights don't depend on how many follow
)
_COLOURS = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


def engine_answers() -> bool:
    """Whether a container engine with compose is here."""
    if shutil.which("docker") is None and "DOCKER_HOST" not in os.environ:
        return False
    return all(docker(*words, check=False).returncode == 0 for words in (["info"], ["compose", "version"]))


def docker(
    *words: str, timeout: float = 600, check: bool = True, env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run one docker command; its output is text without colours."""
    done = subprocess.run(
        ["docker", *words],
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
        env={**os.environ, **(env or {})},
    )
    if check and done.returncode:
        raise AssertionError(
            f"docker {' '.join(words)}: exit {done.returncode}\n{done.stdout}\n{done.stderr}"
        )
    done.stdout = _COLOURS.sub("", done.stdout)
    return done


class Stack:
    """A compose project of its own name; use as a context manager, which removes all of it.

    name: of the run, as its fleet file has it.
    """

    name = "compose"

    def __init__(
        self, folder: Path, rounds: int, seed: int = 0, file: Path | None = None, text: str | None = None
    ) -> None:
        self.project = f"fed-asi-test-{uuid.uuid4().hex[:8]}"
        self.port = free_port()
        self.fleet = folder / "fleet.toml"
        self.folder = folder
        self.environment = {"FED_ASI_PORT": str(self.port)}
        self.text = FLEET.read_text() if text is None else text
        self.write(rounds, seed)
        self.file = file or folder / "docker-compose.yml"

    def write(self, rounds: int, seed: int) -> None:
        """Write the fleet file and the compose file made from it."""
        text = self.text.replace("seed = 0", f"seed = {seed}").replace("rounds = 5", f"rounds = {rounds}")
        text += CONSTANT
        self.fleet.write_text(text)
        made = compose_text(load_config(self.fleet), self.fleet, self.folder)
        (self.folder / "docker-compose.yml").write_text(made)

    def __enter__(self) -> Stack:
        return self

    def __exit__(self, *_error: object) -> None:
        self.compose("down", "--volumes", "--remove-orphans", "--timeout", "2", check=False)

    def compose(self, *words: str, **options: object) -> subprocess.CompletedProcess[str]:
        """Run one docker compose command on this project."""
        command = ["compose", "--project-name", self.project, "--file", str(self.file), *words]
        return docker(*command, env=self.environment, **options)  # type: ignore[arg-type]

    def up_to_the_end(self) -> subprocess.CompletedProcess[str]:
        """Start everything and wait for the runner's result, as the README says."""
        return self.compose(
            "up", "--abort-on-container-exit", "--exit-code-from", "runner", "--timeout", "5", check=False
        )

    def log(self, service: str) -> str:
        """What a service has printed so far."""
        done = docker("logs", f"{self.project}-{service}-1")
        return done.stdout + _COLOURS.sub("", done.stderr)

    def wait_for_log(self, service: str, pattern: str, timeout: float = 400) -> str:
        """Wait until a service has printed `pattern`; return its log."""
        until = time.monotonic() + timeout
        while not re.search(pattern, text := self.log(service)):
            if time.monotonic() > until:
                raise AssertionError(
                    f"{service} has not said {pattern!r} within {timeout} s:\n{text[-3000:]}"
                )
            time.sleep(1.0)
        return text

    def wait_for_page(self, timeout: float = 120) -> str:
        """Wait until the page answers a browser's request; return its address.

        Neither its log nor its port says so: the log may be that of its last start, and the engine takes connections
        to the port before the page listens, and resets them.
        """
        url, until = f"http://127.0.0.1:{self.port}/", time.monotonic() + timeout
        while True:
            try:
                with urllib.request.urlopen(url, timeout=10) as answer:
                    answer.read()
                return url
            except OSError as error:
                if time.monotonic() > until:
                    raise AssertionError(f"the page has not answered within {timeout} s: {error}") from error
            time.sleep(0.5)

    def wait_for_runner(self, timeout: float = 500) -> int:
        """Wait for the runner to end; return its exit code."""
        return int(docker("wait", f"{self.project}-runner-1", timeout=timeout).stdout)

    def records(self, into: Path) -> RunStore:
        """The run's records, copied out of the volume."""
        docker("cp", f"{self.project}-runner-1:/runs/{self.name}", str(into))
        return RunStore.read(into)

    def in_network(self, network: str, *command: str, mounts: tuple[str, ...] = ()) -> str:
        """Run a command in a further container on one of the project's networks; return all it printed."""
        name = f"{self.project}-extra-{uuid.uuid4().hex[:6]}"
        volumes = [word for mount in mounts for word in ("--volume", f"{self.project}_{mount}")]
        words = ["run", "--rm", "--name", name, "--network", f"{self.project}_{network}", *volumes]
        done = docker(*words, IMAGE, "timeout", "40", *command, check=False, timeout=90)
        return done.stdout + done.stderr


def outcomes(store: RunStore) -> dict[int, list[DeviceRoundRecord]]:
    """Each device's rounds, in order."""
    found: dict[int, list[DeviceRoundRecord]] = {}
    for record in store.device_rounds():
        found.setdefault(record.partition_id, []).append(record)
    return found
