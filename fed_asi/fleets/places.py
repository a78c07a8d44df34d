"""Files that a fleet file names, made absolute, so that workers and a resumed run find them from any folder."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

from fed_asi.data import sources
from fed_asi.data.sources import is_file
from fed_asi.fleets import hardware
from fed_asi.fleets.config import WEIGHTS, RunConfig


def place_(raw: dict[str, Any], folder: Path, data_dir: Path | None) -> None:
    """Make the paths in a fleet file's content absolute; whether they exist is checked when they are read.

    folder: that of the fleet file, from which relative paths start. data_dir: where NAME.npz makes NAME a data set.
    """
    data, model = raw.get("data"), raw.get("model")
    if isinstance(data, dict) and isinstance(data.get("source"), str):
        data["source"] = _source(data["source"], folder, data_dir)
    if isinstance(model, dict) and isinstance(model.get("weights"), str) and model["weights"] not in WEIGHTS:
        model["weights"] = _weights(model["weights"], folder)
    for owner in (*_tables(raw.get("groups")), *_tables(raw.get("devices"))):
        _place_device_(owner, folder)


def _tables(found: Any) -> list[dict[str, Any]]:
    return [one for one in found if isinstance(one, dict)] if isinstance(found, list) else []


def _place_device_(owner: dict[str, Any], folder: Path) -> None:
    """Make absolute the paths of a group or device: its preset, table, and trace of presence."""
    device, presence = owner.get("device"), owner.get("presence")
    if isinstance(device, str) and hardware.is_file(device):
        owner["device"] = _absolute(folder, device)
    for table, key in ((device, "preset"), (device, "table"), (presence, "trace")):
        name = table.get(key) if isinstance(table, dict) else None
        if isinstance(table, dict) and isinstance(name, str) and (key != "preset" or hardware.is_file(name)):
            table[key] = _absolute(folder, name)


def device_files(config: RunConfig) -> list[str]:
    """Return the files that describe devices, each once: presets, tables and traces of presence."""
    found: list[str | None] = []
    for owner in (*config.groups, *config.devices):
        if owner.device is not None:
            named = owner.device.preset
            found += [owner.device.table, named if named and hardware.is_file(named) else None]
        if owner.presence is not None:
            found.append(owner.presence.trace)
    return list(dict.fromkeys(one for one in found if one is not None))


def _source(name: str, folder: Path, data_dir: Path | None) -> str:
    if sources.is_path(name):
        return _absolute(folder, name)
    found = None if name in sources.names() else sources.npz_of(name, data_dir)
    return name if found is None else _absolute(Path(), str(found))


def _weights(name: str, folder: Path) -> str:
    """Return the path of weights, beside the fleet file or in the working folder; the name if in neither."""
    for start in (folder, Path()):
        path = _absolute(start, name)
        if is_file(Path(path)):
            return path
    return name


def _absolute(folder: Path, name: str) -> str:
    path = Path(name)
    with contextlib.suppress(RuntimeError):  # ~USER without such a user
        path = path.expanduser()
    return str((folder / path).absolute())
