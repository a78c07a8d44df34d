"""The text of a fleet's docker-compose.yml."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from fed_asi.errors import ConfigError
from fed_asi.fleets.config import RunConfig
from fed_asi.fleets.file import read_toml
from fed_asi.fleets.fleet import Device, build
from fed_asi.fleets.own_names import files_of, packages_of
from fed_asi.fleets.places import device_files
from fed_asi.texts import in_yaml, is_unicode, visible
from fed_asi.units import format_bytes

MIB = 2**20


IMAGE = "fed-asi:0.1.0"


IN_THE_IMAGE = {
    "fed_asi",
    "torch",
    "torchvision",
    "sklearn",
    "scipy",
}  # packages in the image, whose code a fleet may name


DEVICE_BYTES = 512 * MIB  # measured: SuperNode, worker, torch, one network (docs/howto/compose.md)


WHOLE_DEVICE_BYTES = 128 * MIB  # the solver and the traces of a step


MARGIN_BYTES = 128 * MIB  # on top of that: what a step may take beyond its budget, page cache, /tmp


SUPERLINK_BYTES = 384 * MIB


RUNNER_BYTES = 2048 * MIB


PAGE_BYTES = 384 * MIB  # for drawing figures: measured 164 MiB (docs/howto/compose.md)


RESERVE_BYTES = 1024 * MIB  # left for the machine itself


_HEAD = """\
# Made by: fed-asi compose {fleet}
# Change the fleet file and make it again rather than editing this one. Keys are made at first start.
#   docker compose up --build --abort-on-container-exit --exit-code-from runner
# Page: http://localhost:8080, live while the run goes on (FED_ASI_PORT=8081 docker compose up ... for another port)
name: {project}

x-hardened: &hardened
  image: ${{FED_ASI_IMAGE:-{image}}}
  pull_policy: never
  init: true
  read_only: true
  cap_drop: [ALL]
  security_opt: ["no-new-privileges:true"]
  pids_limit: 256
  shm_size: 64m
  tmpfs: ["/tmp:mode=1777,size=256m"]
  stop_grace_period: 10s
  environment: &environment
    FED_ASI_PROFILES: ${{COMPOSE_PROFILES:-}}
    FED_ASI_PORT: ${{FED_ASI_PORT:-8080}}
    FLWR_LOG_LEVEL: ${{FLWR_LOG_LEVEL:-WARNING}}
    OMP_NUM_THREADS: "{threads}"

services:
  superlink:
    <<: *hardened
    build:
      context: {context}
      args:
        TORCH_INDEX: ${{TORCH_INDEX:-https://download.pytorch.org/whl/cpu}}
    command: [python, -m, deploy.superlink, --devices, "{devices}"]
    mem_limit: {superlink}m
    networks:
      devices: {{}}
      operator: {{aliases: [superlink-operator]}}
    volumes: ["authority:/own", "trust:/trust", "enrol:/enrol:ro"]

  runner:
    <<: *hardened
    command: [python, -m, deploy.runner, --fleet, {file}]
    depends_on: [superlink]
    mem_limit: {runner}m
    networks: [operator]
    volumes: ["trust:/trust:ro", "workplace:/workplace", "runs:/runs"{runner_mounts}]

  page:
    <<: *hardened
    command: [python, -m, deploy.page]
    mem_limit: {page}m
    networks: [page]
    ports: ["127.0.0.1:${{FED_ASI_PORT:-8080}}:8080"]
    volumes: ["runs:/runs:ro"]
"""


_DEVICE = """
  device-{id}:  # {group}: {budget}
    <<: *hardened
    command: [python, -m, deploy.device, --node-config, "{node_config}"]
    depends_on: [superlink]
    environment:
      <<: *environment
      FED_ASI_STATE_DIR: /own/state
      FED_ASI_BALLAST_MIB: ${{FED_ASI_BALLAST_{id}:-0}}
    mem_limit: {limit}m
    memswap_limit: {limit}m
    networks: [devices]
    volumes: ["device-{id}:/own", "trust:/trust:ro", "enrol:/enrol", "workplace:/workplace:ro"{mounts}]
"""


def node_config(device: Device, num_devices: int) -> str:
    """Return a SuperNode's configuration: its partition, and its budget, RAM and flash where the device has them."""
    text = f"partition-id={device.partition_id} num-partitions={num_devices}"
    own = {
        "budget": largest_budget(device),
        "ram": device.resources.ram_bytes,
        "flash": device.resources.flash_bytes,
    }
    return text + "".join(f" {key}={size}" for key, size in own.items() if size is not None)


def has(device: Device) -> str:
    """Return a device's limits, for people."""
    found = device.resources
    sizes = {"RAM": found.ram_bytes, "flash": found.flash_bytes}
    said = [f"{format_bytes(size)} {name}" for name, size in sizes.items() if size is not None]
    if found.budget_bytes is not None or not said:
        said.append(format_bytes(found.budget_bytes))
    return ", ".join(said)


def largest_budget(device: Device) -> int | None:
    """Return a device's largest budget in any round, in bytes; None if none is finite."""
    budgets = [resources.budget_bytes for _, resources in device.phases]
    finite = [budget for budget in budgets if budget is not None]
    return max(finite) if len(finite) == len(budgets) else None


def limit_bytes(device: Device) -> int:
    """Return the memory limit of a device's container, in bytes.

    A device with a RAM limit plans its whole step in the container, which takes more memory than the step.
    """
    planning = WHOLE_DEVICE_BYTES if device.resources.whole_device else 0
    return DEVICE_BYTES + MARGIN_BYTES + planning + (largest_budget(device) or 0)


def compose_text(
    config: RunConfig, fleet_file: Path, folder: Path, mounts: Sequence[str] = (), project: str | None = None
) -> str:
    """Return the docker-compose.yml of a fleet, to be written into `folder`.

    fleet_file: what the runner reads. mounts: further volumes of runner and devices, such as "./data:/data:ro".
    """
    if config.compute.trunk_engine != "torch":
        raise ConfigError(
            f'compute.trunk_engine: the containers do not have {config.compute.trunk_engine}; leave it "torch"'
        )
    fleet = build(config)
    files = [mount(fleet_file, f"/fleet/{fleet_file.name}", folder)]
    if config.budgets_csv is not None:
        files.append(mount(fleet_file.parent / config.budgets_csv, f"/fleet/{config.budgets_csv}", folder))
    files += [_beside(Path(name), fleet_file, folder) for name in device_files(config)]
    files += [_beside(path, fleet_file, folder) for path in _code(fleet_file)]
    head = _HEAD.format(
        fleet=visible(relative(fleet_file, folder)),
        project=project or f"fed-asi-{config.name.lower().replace('.', '-')}",
        image=IMAGE,
        threads=config.compute.threads,
        context=_scalar(relative(repository(), folder)),
        devices=len(fleet),
        file=_scalar(f"/fleet/{fleet_file.name}"),
        superlink=SUPERLINK_BYTES // MIB,
        runner=RUNNER_BYTES // MIB,
        page=PAGE_BYTES // MIB,
        runner_mounts=_more([*files, *mounts]),
    )
    return head + "".join(_service(device, len(fleet), mounts) for device in fleet) + _foot(len(fleet))


def _code(fleet_file: Path) -> list[Path]:
    """Return the files of code that a fleet file names. Raises ConfigError for packages that are not in the image."""
    raw = read_toml(fleet_file)
    for where, package in packages_of(raw):
        if package not in IN_THE_IMAGE:
            raise ConfigError(
                f'{where}: the containers do not have the package {package}; name a file, "./file.py:name"'
            )
    return files_of(raw, fleet_file.parent)


def _service(device: Device, num_devices: int, mounts: Sequence[str]) -> str:
    return _DEVICE.format(
        id=device.partition_id,
        group=visible(device.group),
        budget=visible(has(device)),
        node_config=node_config(device, num_devices),
        limit=-(-limit_bytes(device) // MIB),
        mounts=_more(mounts),
    )


def _foot(num_devices: int) -> str:
    networks = [
        "",
        "networks:",
        "  devices: {internal: true}",
        "  operator: {internal: true}",
        "  page: {}",
        "",
    ]
    volumes = [
        "authority",
        "trust",
        "enrol",
        "workplace",
        "runs",
        *(f"device-{n}" for n in range(num_devices)),
    ]
    return "\n".join([*networks, "volumes:", *(f"  {volume}: {{}}" for volume in volumes), ""])


def _more(mounts: Sequence[str]) -> str:
    return "".join(f", {_scalar(mount)}" for mount in mounts)


def _scalar(text: str) -> str:
    """Return a text as a value of the file: quoted for YAML, with $ doubled for compose. Raises ConfigError."""
    if not is_unicode(text):
        raise ConfigError(f"{text} is not valid Unicode, which compose files need: rename it")
    return in_yaml(text.replace("$", "$$"))


def mount(source: Path, inside: str, folder: Path) -> str:
    """Return a read-only mount of a file or folder, as compose writes it: "SOURCE:INSIDE:ro".

    Raises ConfigError for a name with a colon, which compose would take for the end of the name.
    """
    parts = relative(source, folder), inside
    for part in parts:
        if ":" in part:
            raise ConfigError(f"{part} has a ':', which compose cannot mount: rename it")
    return ":".join([*parts, "ro"])


def _beside(path: Path, fleet_file: Path, folder: Path) -> str:
    """Return a device's file as the runner sees it, beside the fleet file. Raises ConfigError if it is elsewhere."""
    inside = relative(path, fleet_file.parent)
    if inside.startswith(".."):
        why = "the runner's container sees no more than the fleet file's folder"
        raise ConfigError(f"{visible(str(path))}: {why}; put it there")
    return mount(path, f"/fleet/{inside.removeprefix('./')}", folder)


def relative(path: Path, folder: Path) -> str:
    """Return a path relative to a folder, as a compose file writes it."""
    text = os.path.relpath(path.resolve(), folder.resolve())
    return text if text.startswith(".") else f"./{text}"


def repository() -> Path:
    """Return the folder of this clone, from which the image is built.

    Raises ConfigError if the package was installed without a clone.
    """
    root = Path(__file__).resolve().parents[2]
    if not (root / "Dockerfile").is_file():
        raise ConfigError("containers are built from a clone of the repository: run fed-asi from there")
    return root
