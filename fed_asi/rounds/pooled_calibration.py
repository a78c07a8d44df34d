"""Calibration on the devices, server side: which devices are asked, and what is made of their sums."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from fed_asi import files, seeds
from fed_asi.devices import calibration
from fed_asi.devices.calibration import COLUMNS, IMAGES, Sums, blank_records, forms_of
from fed_asi.devices.edge import readable
from fed_asi.devices.job import Job
from fed_asi.devices.reply import Reply, payload_bytes
from fed_asi.devices.sums import Expected
from fed_asi.errors import RunError, UpdateError
from fed_asi.fleets.resources import Resources
from fed_asi.methods import Method
from fed_asi.planning.profile import Candidate, LayerProfile, Profile
from fed_asi.planning.recording import Record
from fed_asi.planning.trials import undominated
from fed_asi.results.progress import Watcher
from fed_asi.results.store import RunStore
from fed_asi.rounds.executor import Executor, one_reply_a_job
from fed_asi.units import format_bytes
from fed_asi.workplace.place import Workplace


def choose(place: Workplace) -> list[int]:
    """Return the devices to ask, ascending: drawn from the seed among those with the images for it."""
    config = place.config
    wanted, largest = config.method.calibration_devices, place.plans.profile.micro_batches[-1]
    sizes = {i: len(place.shard(i).train) for i in range(config.num_devices)}
    able = [i for i, size in sizes.items() if size >= largest]
    if len(able) < wanted:  # then those with most images
        able = sorted(sizes, key=lambda i: (-sizes[i], i))[:wanted]
    rng = seeds.rng(config.seed, "calibration")
    return sorted(int(i) for i in rng.choice(able, size=min(wanted, len(able)), replace=False))


def add(parts: Sequence[Mapping[str, Tensor]]) -> Sums:
    """Return the sums over devices of the vectors of each name."""
    total: Sums = {}
    for part in parts:
        for name, vector in part.items():
            total[name] = total[name] + vector if name in total else vector.clone()
    return total


def pooled_profile(
    place: Workplace, pooled: Mapping[str, Tensor], parts: Sequence[Mapping[str, Tensor]]
) -> Profile:
    """Return the profile of all devices together.

    pooled: the sums of the first pass. parts: what devices sent in the second.
    Raises RunError where no device answered.
    """
    if not parts:
        raise RunError('no device took part in the calibration; use method.calibration = "server"')
    base = place.plans.profile
    blank = blank_records(place)
    layers = tuple(
        _layer(place, item, layer, pooled, parts) for item, layer in zip(blank, base.layers, strict=True)
    )
    sizes = [b for b in base.micro_batches if all(b in layer.candidates for layer in layers)]
    return replace(
        base,
        layers=layers,
        floors={b: base.floors[b] for b in sizes},
        num_examples=int(pooled[IMAGES]),
    )


def _layer(
    place: Workplace,
    item: Record,
    layer: LayerProfile,
    pooled: Mapping[str, Tensor],
    parts: Sequence[Mapping[str, Tensor]],
) -> LayerProfile:
    weight, centered, bias = _mean(parts, f"{layer.name} energies").tolist()
    channels = pooled[f"{layer.name} channels"] / pooled[IMAGES]
    candidates = {
        size: undominated(
            _candidates(item, forms_of(place, item, size, pooled), parts, f"{layer.name} {size}")
        )
        for size in place.plans.profile.micro_batches
        if any(f"{layer.name} {size}" in part for part in parts)
    }
    return replace(
        layer,
        weight_norm=weight**0.5,
        centered_energy=centered,
        channel_energies=tuple(_mean(parts, f"{layer.name} channel energies").tolist()),
        bias_energy=bias,
        mean=tuple(float(f"{m:.6g}") for m in channels.tolist()),
        candidates=candidates,
    )


def _mean(parts: Sequence[Mapping[str, Tensor]], name: str) -> Tensor:
    """Return the mean of a vector over the devices that sent it, weighted by images."""
    sent = [(part[name], part[IMAGES]) for part in parts if name in part]
    return add([{name: vector * count} for vector, count in sent])[name] / sum(float(c) for _, c in sent)


def _candidates(
    item: Record,
    forms: Sequence[tuple[Method, float | None]],
    parts: Sequence[Mapping[str, Tensor]],
    name: str,
) -> list[Candidate]:
    rows = torch.stack([part[name].view(-1, COLUMNS) for part in parts if name in part])
    largest = rows[:, :, :2].amax(0).tolist()
    means = _mean(parts, name).view(-1, COLUMNS)[:, 2:].tolist()
    return [
        Candidate(
            method,
            int(saved),
            int(published),
            float(f"{square**0.5:.6g}"),
            captured,
            epsilon,
            item.kind.thin_gradient(item.module, method),
        )
        for (method, epsilon), (saved, published), (square, captured) in zip(
            forms, largest, means, strict=True
        )
        if saved >= 0
    ]


def calibrate_on_devices(place: Workplace, store: RunStore, executor: Executor, watcher: Watcher) -> None:
    """Ask some devices for their sums, in two passes, and write the pooled profile where devices read it.

    A device that fails is left out, with a note. Raises RunError where none answers.
    """
    path = place.folder / calibration.EVERYONE
    if path.exists():
        return
    asked = choose(place)
    watcher.stage(f"calibration on {len(asked)} devices")
    sent: list[Reply] = []
    pooled: dict[str, Tensor] = {}
    for phase in (calibration.SPECTRA, calibration.TRIALS):
        sent = _answers(Expected.of(place, phase, pooled), asked, store, executor)
        asked = [reply.partition_id for reply in sent]
        if not sent:
            break
        if phase == calibration.SPECTRA:
            pooled = add([reply.tensors for reply in sent])
    made = pooled_profile(place, pooled, [reply.tensors for reply in sent])
    files.write_file(path, made.to_json().encode())
    size = max(payload_bytes(reply.tensors, "") for reply in sent)
    store.note(
        f"calibration: sums of {len(sent)} devices, {made.num_examples} images, at most {format_bytes(size)} "
        "each in the second pass; no image left a device"
    )


def _answers(expected: Expected, asked: Sequence[int], store: RunStore, executor: Executor) -> list[Reply]:
    """Return what the asked devices send in one pass, by partition id; those with unusable sums are noted."""
    deadline = expected.place.config.compute.deadline_seconds
    nothing = Resources(None, 1)
    jobs = [Job(0, i, nothing, 0.0, deadline_seconds=deadline, phase=expected.phase) for i in asked]
    sizes: dict[str, int] = {}
    for partition_id in asked:
        sizes |= {name: low.nbytes for name, (low, _) in expected.vectors(partition_id).items()}
    expected.place.need_of(asked)
    replies = one_reply_a_job(executor.train(jobs, expected.pooled, sizes), jobs, store.note)
    found = []
    for reply in sorted(replies, key=lambda reply: reply.partition_id):
        why = _why_not(expected, reply)
        if why is None:
            found.append(reply)
        else:
            store.note(f"calibration: device {reply.partition_id} left out: {why}")
    return found


def _why_not(expected: Expected, reply: Reply) -> str | None:
    """Return why a device's sums cannot be added to the others'; None where they can."""
    if reply.outcome != "calibrated":
        return reply.cause
    try:
        expected.check(reply.partition_id, reply.tensors)
    except UpdateError as error:
        return readable(str(error))
    return None
