"""`fed-asi plan`: plan a network's training memory for a budget, and say why."""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fed_asi import data, models
from fed_asi.commands.console import OK, add_output, answer, bar, show, width
from fed_asi.commands.plan_device import (
    Sight,
    add_device_arguments,
    asks_device,
    show_device_plan,
    wrong_arguments,
)
from fed_asi.commands.plan_time import add_time_arguments, asks_time, show_timed_plan, wrong_time
from fed_asi.compression.compress import compress_
from fed_asi.compression.tune import layers_named
from fed_asi.data.images import to_batch
from fed_asi.errors import ConfigError
from fed_asi.files import check_writable
from fed_asi.fleets.pace import RATES
from fed_asi.fleets.resolution import RESOLUTIONS, pixels_of
from fed_asi.layers.copying import copied
from fed_asi.machine import threads
from fed_asi.methods.channels import Channels
from fed_asi.methods.family import Family, default_families, families
from fed_asi.planning.calibration import Progress, profile
from fed_asi.planning.figure import check_figure, figure
from fed_asi.planning.plan import Plan, differences
from fed_asi.planning.profile import Profile
from fed_asi.planning.question import COUNTS, OBJECTIVES
from fed_asi.planning.rivals import Scheduled, captured_share, schedule, schedule_table
from fed_asi.planning.search import plan
from fed_asi.planning.tables import breakdown, diff_table
from fed_asi.units import parse_bytes

EXAMPLES = 32
LAST = 14
MOST_AT_ONCE = 1024
EXAMPLE = "fed-asi plan --model mcunet --budget '16 KiB'"


_REPEATS, _TIMED = 2, 4  # passes, and micro-batches timed in each: the others take as long


def main(arguments: argparse.Namespace) -> int:
    """Print a plan (or the differences of two) and return 0. Raises FedAsiError for mistakes of the user."""
    if arguments.diff:
        left, right = (Plan.load(path) for path in arguments.diff)
        show(diff_table(left, right, width()))
        answer(differences=differences(left, right))
        return OK
    if arguments.model is None:
        raise ConfigError("fed-asi plan needs --model NAME (and --budget), or --diff A B")
    _check(arguments)
    _check_outputs(arguments)
    with threads(1):  # as in a run; on a busy machine, two threads with small products wait for each other
        _answer(arguments)
    return OK


def _answer(arguments: argparse.Namespace) -> None:
    """Print the result that was asked for, and write the files."""
    first, *others = _resolutions(arguments)
    model, x, y, made = _calibrated(arguments, first)
    options = _options(arguments, model)
    if asks_time(arguments):
        show_timed_plan(arguments, model, (x, y), made, options)
        return
    if arguments.schedule:
        _show_schedule(made, _schedule(arguments), options)
        return
    if asks_device(arguments):
        sights = [Sight(model, (x, y), made)]
        for pixels in others:
            again, images, labels, profile = _calibrated(arguments, pixels)
            sights.append(Sight(again, (images, labels), profile))
        show_device_plan(arguments, sights, options)
        return
    chosen = plan(made, arguments.budget, **options)
    if arguments.json:
        answer(plan=chosen.to_dict(), captured=captured_share(chosen, made))
    else:
        with bar("other budgets, and the time of a step"):
            texts = breakdown(made, chosen, width(), **options), f"\n{_time_text(model, chosen, x, y)}"
        for text in texts:
            show(text)
    if arguments.save:
        chosen.save(arguments.save)
    if arguments.figure:
        figure([(arguments.budget, chosen)], arguments.figure)


def _calibrated(arguments: argparse.Namespace, pixels: int) -> tuple[nn.Module, Tensor, Tensor, Profile]:
    """Return a network, the calibration images at a resolution, their labels, and the profile made from them."""
    with bar("network and images"):
        model, x, y = _calibration(arguments, pixels)
    with bar(f"calibration on {len(x)} images") as progress:
        return model, x, y, _profile(arguments, model, x, y, progress)


def _show_schedule(made: Profile, changes: list[tuple[int, int | None]], options: dict[str, Any]) -> None:
    with bar("plans of the schedule"):
        found = schedule(made, changes, **options)
    show(schedule_table(made, found, width()))
    answer(schedule=[_data(one) for one in found])


def _data(one: Scheduled) -> dict[str, Any]:
    plan = None if one.plan is None else one.plan.to_dict()
    return {"from_round": one.round, "budget_bytes": one.budget_bytes, "cause": one.cause, "plan": plan}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    add = parser.add_argument
    add("--model", metavar="NAME", help="a network, such as mcunet")
    add("--budget", default="unlimited", metavar="SIZE", help='such as "16 KiB"; default: unlimited')
    add(
        "--schedule",
        action="append",
        metavar="ROUND=SIZE",
        help='another budget from a round on, such as "6=16 KiB"; may be repeated',
    )
    add_device_arguments(parser)
    add_time_arguments(parser)
    _add_choices(parser)
    _add_calibration(parser)
    add(
        "--profile",
        type=Path,
        metavar="FILE",
        help="the calibration: read from this file if it exists, else written to it",
    )
    add("--save", type=Path, metavar="FILE", help="write the plan as JSON")
    add("--figure", type=Path, metavar="FILE", help="draw the plan: bytes by layer and form")
    add(
        "--diff",
        nargs=2,
        type=Path,
        metavar=("A", "B"),
        help="show how two saved plans differ, and plan nothing",
    )
    add_output(parser, wide=True)


def _add_choices(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("what the plan may choose").add_argument
    add(
        "--layers",
        metavar="WHICH",
        help='train exactly these: "last 4", "all", or names with commas; default: any',
    )
    add("--methods", metavar="KINDS", help="forms that may be used, with commas, such as asi,bias")
    add("--micro-batch", type=int, metavar="N", help="images in memory at one time; default: any number")
    add(
        "--objective",
        choices=(*OBJECTIVES, *RATES),
        metavar="WHAT",
        help=f"what the plan maximises: {', '.join((*OBJECTIVES, *RATES))}; default: captured",
    )
    add("--count", choices=COUNTS, default="saved", help="what the budget covers; default: saved")
    add("--published", action="store_true", help="select ranks as the papers do")


def _add_calibration(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("network and calibration").add_argument
    add(
        "--last",
        type=int,
        metavar="N",
        help=f"calibrate the last N convolutions and the head; default: {LAST}, or all where there are fewer",
    )
    add(
        "--source",
        default="digits",
        metavar="DATA",
        help="calibration images: a data set or an .npz; default: digits",
    )
    add("--data-dir", type=Path, metavar="FOLDER", help="the data's folder; default: FED_ASI_DATA_DIR")
    add("--weights", default="imagenet", help='"imagenet", "none", or a file; default: imagenet')
    add(
        "--weights-dir", type=Path, metavar="FOLDER", help="the weights' folder; default: FED_ASI_WEIGHTS_DIR"
    )
    add(
        "--resolution",
        metavar="PIXELS",
        help="height and width of an image; default: the network's own; with --ram or --flash several with commas, of "
        "which the largest with a plan is taken",
    )


def _check_outputs(arguments: argparse.Namespace) -> None:
    """Raise ConfigError or RunError, before the long part, for output files that could not be written."""
    for path in (arguments.save, arguments.profile):
        if path and not (path == arguments.profile and path.exists()):  # an existing profile is read
            check_writable(path)
    if arguments.figure:
        check_figure(arguments.figure)


def _check(arguments: argparse.Namespace) -> None:
    """Raise ConfigError with every argument whose number or list is impossible."""
    wrong = list(wrong_arguments(arguments))
    if arguments.last is not None and arguments.last < 0:
        wrong.append(f"--last {arguments.last}: a count of last convolutions, 0 for the head alone")
    if arguments.resolution is not None:
        wrong += _wrong_resolution(arguments.resolution)
    if arguments.micro_batch is not None and not 1 <= arguments.micro_batch <= MOST_AT_ONCE:
        wrong.append(
            f"--micro-batch {arguments.micro_batch}: examples in memory at one time, from 1 to {MOST_AT_ONCE}"
        )
    for name in ("layers", "methods"):
        value = getattr(arguments, name)
        if value is not None and not _names(value):
            wrong.append(f"--{name} {value!r}: names with commas")
    wrong += _wrong_sizes(arguments)
    wrong += wrong_time(arguments)
    if wrong:
        raise ConfigError(wrong)


def _wrong_sizes(arguments: argparse.Namespace) -> Iterator[str]:
    """Yield what is wrong with sizes in bytes."""
    for name in ("budget", "ram", "flash", "reserve"):
        try:
            parse_bytes(getattr(arguments, name))
        except ConfigError as error:
            yield f"--{name}: {error}"
    if arguments.schedule:
        try:
            _schedule(arguments)
        except ConfigError as error:
            yield str(error)


def _resolutions(arguments: argparse.Namespace) -> tuple[int, ...]:
    """Return the requested resolutions, largest first; by default the network's own."""
    if arguments.resolution is None:
        return (models.resolution_of(models.canonical(arguments.model)),)
    return pixels_of([int(text) for text in arguments.resolution.split(",")])


def _wrong_resolution(text: str) -> Iterator[str]:
    """Yield what is wrong with the resolutions given."""
    try:
        pixels_of([int(one) for one in text.split(",")])
    except ValueError as error:
        why = (
            str(error)
            if "twice" in str(error)
            else "pixels of a square input, from {} to {}".format(*RESOLUTIONS)
        )
        yield f"--resolution {text}: {why}"


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def _options(arguments: argparse.Namespace, model: nn.Module) -> dict[str, Any]:
    layers = arguments.layers
    if layers and layers != "all" and not layers.startswith("last "):
        layers = layers_named(model, _names(layers))
    return {
        "micro_batch": arguments.micro_batch,
        "methods": _methods(arguments) or (_of_devices() if asks_device(arguments) else None),
        "objective": arguments.objective,
        "layers": layers,
        "count": arguments.count,
        "selection": "published" if arguments.published else "exact",
    }


def _of_devices() -> tuple[Family, ...]:
    """Return the methods that plans of whole devices use by default; training some channels only is among them."""
    return (*default_families(), Family(Channels))


def _methods(arguments: argparse.Namespace) -> tuple[str, ...] | None:
    return tuple(_names(arguments.methods)) if arguments.methods else None


def _schedule(arguments: argparse.Namespace) -> list[tuple[int, int | None]]:
    """Return (first round, bytes) of --budget and of every --schedule."""
    changes: dict[int, int | None] = {1: parse_bytes(arguments.budget)}
    for text in arguments.schedule:
        round, equals, budget = text.partition("=")
        if not equals or not round.strip().isdigit() or int(round) < 2 or int(round) in changes:
            raise ConfigError(f'--schedule {text!r}: write ROUND=BUDGET, each round once, from 2: "6=16 KiB"')
        changes[int(round)] = parse_bytes(budget)
    return sorted(changes.items())


def _calibration(arguments: argparse.Namespace, resolution: int) -> tuple[nn.Module, Tensor, Tensor]:
    """Return the model and the calibration batch, images and labels."""
    name = models.canonical(arguments.model)
    dataset = data.load(arguments.source, arguments.data_dir)
    weights = None if arguments.weights == "none" else arguments.weights
    classes = len(dataset.class_names)
    model = models.build(name, classes, weights, resolution, weights_dir=arguments.weights_dir)
    models.check_takes(model, name, classes, resolution)
    images, labels = np.asarray(dataset.x_train[:EXAMPLES]), np.asarray(dataset.y_train[:EXAMPLES])
    x = to_batch(images, resolution, *models.normalisation(name))
    return model, x, torch.from_numpy(labels).long()


def _profile(
    arguments: argparse.Namespace, model: nn.Module, x: Tensor, y: Tensor, progress: Progress
) -> Profile:
    if arguments.profile and arguments.profile.exists():
        made = Profile.load(arguments.profile)
        made.check(model, x)
        return made
    convolutions = _last(model, arguments.last)
    sizes = sorted({1, 4, 16, EXAMPLES} | ({arguments.micro_batch} if arguments.micro_batch else set()))
    names = list(dict.fromkeys([*convolutions, models.head_name(model)]))
    methods = tuple(dict.fromkeys([*default_families(), *families(_methods(arguments) or ())]))
    if asks_device(arguments):
        methods = tuple(dict.fromkeys([*_of_devices(), *methods]))
    kept = arguments.profile is not None  # so that the saved profile answers later questions too
    made = profile(
        model,
        x,
        y,
        trained=names,
        micro_batches=sizes,
        methods=methods,
        centered=None if kept else True,
        grid=kept or arguments.published,
        progress=progress,
    )
    if arguments.profile:
        made.save(arguments.profile)
    return made


def _last(model: nn.Module, count: int | None) -> list[str]:
    """Return the names of the last `count` convolutions; None: of the last LAST, or of all if there are fewer."""
    every = [name for name, module in model.named_modules() if isinstance(module, nn.Conv2d)]
    if count is not None and count > len(every):
        raise ConfigError(f"--last {count}: the network has {len(every)} convolutions")
    return every[max(0, len(every) - (LAST if count is None else count)) :]


def _time_text(model: nn.Module, chosen: Plan, x: Tensor, y: Tensor) -> str:
    """Return what a step takes here, one micro-batch after another, against plain PyTorch with the whole batch."""
    planned = copied(model).train()
    compress_(planned, chosen)
    plain = copied(model).eval()
    trained = {name for name, p in planned.named_parameters() if p.requires_grad}
    for name, parameter in plain.named_parameters():
        parameter.requires_grad_(name in trained)
    ours = _seconds(planned, x, y, chosen.micro_batch)
    whole = _seconds(plain, x, y, len(x))
    return (
        f"time of {len(x)} samples on this machine with one thread: {ours * 1000:.0f} ms in micro-batches of "
        f"{chosen.micro_batch}, {whole * 1000:.0f} ms in plain PyTorch as one batch, trunk included"
    )


def _seconds(model: nn.Module, x: Tensor, y: Tensor, micro_batch: int) -> float:
    """Return the seconds for all samples, one micro-batch after another, from the faster of two passes over some."""
    parts = list(zip(torch.split(x, micro_batch), torch.split(y, micro_batch), strict=True))
    timed = parts[:_TIMED]
    passes = []
    for _ in range(_REPEATS):
        began = time.perf_counter()
        for images, labels in timed:
            torch.autograd.backward(F.cross_entropy(model(images), labels))
        passes.append(time.perf_counter() - began)
    return min(passes) * len(parts) / len(timed)
