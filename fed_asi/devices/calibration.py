"""Calibration where the images are: devices send sums, never activations, and the server adds them up.

It takes two passes over a few devices. In the first, each device sends its channel sums and, for every layer,
micro-batch and mode, the eigenvalues of the mode's Gram matrix, summed over its micro-batches. These sums add up
across devices, and ranks are proposed from nothing else. In the second, each device tries the proposed forms on its
own images and sends the error and the gradient captured of each form, with its bytes. The squared error of dW and the
gradient captured are averaged over devices, weighted by images, so a plan's worth is the average gain of a device in
its own gradient. (Errors of summed gradients do not add up across devices, so no such sum is taken.)
What is sent tells how strong the activations of each channel and mode are, not what is in an image.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from fed_asi.compression.graph import analyse
from fed_asi.devices.pacing import paced
from fed_asi.errors import RunError
from fed_asi.files import write_file
from fed_asi.methods import Family, Method, Vanilla
from fed_asi.methods.ranks import spectra
from fed_asi.planning.device_plans import DevicePlans
from fed_asi.planning.profile import Candidate, Profile
from fed_asi.planning.recording import Record, grouped, record
from fed_asi.planning.trials import Study
from fed_asi.training.evaluation import load_tensors_
from fed_asi.workplace.place import Workplace

Sums = dict[str, Tensor]


SPECTRA, TRIALS = "spectra", "trials"  # the two passes


EVERYONE = "federated.json"  # the pooled profile, in the run's workplace


IMAGES = "images"
COLUMNS = 4  # numbers that a device sends for each form (_row)


def sums_for(place: Workplace, partition_id: int, phase: str, pooled: Mapping[str, Tensor]) -> Sums:
    """Return what a device sends in one pass, as float64 vectors by name.

    phase: SPECTRA or TRIALS. pooled: in the second pass, the summed results of the first.
    """
    records = _records(place, partition_id)
    count = len(records[0].x)
    found: Sums = {IMAGES: torch.tensor([float(count)], dtype=torch.float64)}
    sizes = [b for b in place.plans.profile.micro_batches if b <= count]
    for item in records:
        found |= _spectra(item, sizes) if phase == SPECTRA else _trials(place, item, sizes, pooled)
    return found


def own_profile(place: Workplace, partition_id: int) -> Profile:
    """Return the profile of a device from its own images alone, at the weights before the first round."""
    records, base = _records(place, partition_id), place.plans.profile
    sizes = tuple(b for b in base.micro_batches if b <= len(records[0].x)) or base.micro_batches[:1]
    study = replace(study_of(place), micro_batches=sizes, centered=place.config.method.may_center)
    pairs = zip(records, base.layers, strict=True)
    return replace(
        base,
        layers=tuple(study.layer(item, layer.position, layer.head) for item, layer in pairs),
        floors={b: base.floors[b] for b in sizes},
        num_examples=len(records[0].x),
    )


def plans_for(place: Workplace, partition_id: int) -> DevicePlans:
    """Return the plans of a device, from the server's profile, its own or the pooled one; paced if its time counts.

    A device's own profile is a function of seed, device and initial weights alone. It is cached in the process and,
    where the folder is writable, beside the run's.
    """
    return paced(place, partition_id, _by_bytes(place, partition_id))


def _by_bytes(place: Workplace, partition_id: int) -> DevicePlans:
    calibration = place.config.method.calibration
    if calibration == "server":
        return place.plans
    name = EVERYONE if calibration == "federated" else f"profiles/{partition_id}.json"
    if name not in place.own_plans:
        place.own_plans[name] = place.plans.replanned(_profile_file(place, partition_id, name))
    return place.own_plans[name]


def _profile_file(place: Workplace, partition_id: int, name: str) -> Profile:
    if name == EVERYONE:
        return Profile.load(place.file(name))
    path = place.folder / name
    if path.exists():
        return Profile.load(path)
    made = own_profile(place, partition_id)
    with contextlib.suppress(OSError, RunError):  # a device may only read its run's folder
        path.parent.mkdir(exist_ok=True)
        write_file(path, made.to_json().encode())
    return made


def _records(place: Workplace, partition_id: int) -> list[Record]:
    """Return inputs and gradients of the trained layers on a device's own images, computed on the CPU.

    Always on the CPU, so that a run plans the same wherever it trains: the last bits of a number can decide between two
    plans of almost equal worth.
    """
    rows = place.rows(place.shard(partition_id).train[: place.config.method.calibration_images])
    x, y = place.batch(rows)
    return _recorded(place, x.cpu(), y.cpu())


def blank_records(place: Workplace) -> list[Record]:
    """Return records that have only the layers' sizes."""
    x, y = place.batch(place.rows(np.zeros(1, np.int64)))
    return _recorded(place, torch.zeros_like(x).cpu(), torch.zeros_like(y).cpu())


def _recorded(place: Workplace, x: Tensor, y: Tensor) -> list[Record]:
    tail = copy.deepcopy(place.tail).cpu().eval()
    load_tensors_(tail, place.reference)
    tail.requires_grad_(False)
    return record(tail, analyse(tail), [layer.name for layer in place.plans.profile.layers], x, y)


def study_of(place: Workplace) -> Study:
    """Return how the forms of a layer are tried in this run."""
    method = place.config.method
    return Study(
        place.plans.profile.micro_batches,
        method.families or (Family(Vanilla),),
        "published" if method.grid == "published" else "candidates",
        seed=place.config.seed,
        centered=None if method.may_center else False,
    )


def _spectra(item: Record, sizes: Sequence[int]) -> Sums:
    x = item.canonical()
    found = {f"{item.name} channels": x.transpose(0, 1).flatten(1).double().mean(1) * len(x)}
    for size in sizes:
        for mode, values in enumerate(spectra(grouped(x, size))):
            found[f"{item.name} {size} {mode}"] = values
    return found


def forms_of(
    place: Workplace, item: Record, size: int, pooled: Mapping[str, Tensor]
) -> list[tuple[Method, float | None]]:
    """Return the forms to try, the same on every device and on the server."""
    modes = item.canonical().dim()
    values = [pooled[f"{item.name} {size} {mode}"] for mode in range(modes)]
    head = place.plans.profile.layer(item.name).head
    return list(study_of(place).forms(item, size, head, values))


def _trials(place: Workplace, item: Record, sizes: Sequence[int], pooled: Mapping[str, Tensor]) -> Sums:
    mean = (pooled[f"{item.name} channels"] / pooled[IMAGES]).float()
    trial, (weight_norm, energy, bias_energy) = study_of(place).trial(item, mean)
    energies = [weight_norm**2, energy, bias_energy]
    found = {
        f"{item.name} energies": torch.tensor(energies, dtype=torch.float64),
        f"{item.name} channel energies": trial.errors.channel_energies,
    }
    for size in sizes:
        tried = [trial.run(method, size, epsilon) for method, epsilon in forms_of(place, item, size, pooled)]
        rows = [_row(candidate) for candidate in tried]
        found[f"{item.name} {size}"] = torch.tensor(rows, dtype=torch.float64).flatten()
    return found


def _row(candidate: Candidate | None) -> list[float]:
    """What a device sends for one form: bytes, bytes as the papers count, squared error, gradient captured."""
    if candidate is None:
        return [-1.0, 0.0, 0.0, 0.0]
    c = candidate
    return [c.saved_bytes, c.published_bytes, c.error**2, c.captured]
