"""Checks of settings against each other and against the machine; each returns its problems."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator
from functools import partial

from fed_asi import libraries, models, own_code
from fed_asi.data import engines, sources
from fed_asi.errors import ConfigError, nearest
from fed_asi.fleets import aggregate, faults, over_budget, resources, sharding
from fed_asi.fleets.clock_checks import clock_fits
from fed_asi.fleets.config import DeviceConfig, GroupConfig, MethodConfig, RunConfig
from fed_asi.fleets.device_checks import devices_known
from fed_asi.fleets.gpu_share import gpus_fit
from fed_asi.fleets.pace_checks import pace_fits
from fed_asi.fleets.problems import unknown_value
from fed_asi.fleets.resolution_checks import resolutions_fit
from fed_asi.fleets.whole_device_checks import whole_devices
from fed_asi.machine import cpus_here
from fed_asi.methods import ASI, base, recipe_names, recipe_of
from fed_asi.methods.family import family_names, parse
from fed_asi.strategies import Conditions

MOST_DEVICES = 10**6  # each is an object of a few hundred bytes, in every process that knows the fleet
_NO_VARIANCE = "batch norm has no variance of one image"
Check = Callable[[RunConfig, Collection[str], int], Iterator[str]]


def check(config: RunConfig, broken: Collection[str] = (), cpus: int | None = None) -> list[str]:
    """Return every problem between settings that are each well-formed.

    broken: places that hold a stand-in, such as "groups.0.count"; they are not checked.
    cpus: of the machine; None counts those that this process may use.
    """
    available = cpus_here() if cpus is None else cpus
    checks: tuple[Check, ...] = (
        _fleet_size,
        _names,
        _devices,
        _resources,
        _schedules,
        _method,
        _data,
        _faults,
        _known,
        _engine,
        _gradients_at,
        _aggregate,
        devices_known,
        whole_devices,
        resolutions_fit,
        clock_fits,
        pace_fits,
        _cpus,
        gpus_fit,
    )
    return [problem for one in checks for problem in one(config, broken, available)]


def _is_broken(broken: Collection[str], *starts: str) -> bool:
    return any(place == start or place.startswith(f"{start}.") for place in broken for start in starts)


def _stands_in(place: str, broken: Collection[str]) -> bool:
    """Return whether the value at this place, or at one above it, is a stand-in for a wrong one."""
    return any(place == other or place.startswith(f"{other}.") for other in broken)


def _size_unknown(broken: Collection[str]) -> bool:
    parts = [place.split(".") for place in broken]
    return any(p[0] == "groups" and (len(p) < 3 or p[2] == "count") for p in parts)


def _fleet_size(config: RunConfig, broken: Collection[str], _cpus: int) -> Iterator[str]:
    if _size_unknown(broken):
        return
    if not config.groups:
        yield "groups: none; a fleet needs at least one [[groups]]"
    elif config.num_devices > MOST_DEVICES:
        yield f"groups: {config.num_devices:,} devices in all, and a run takes at most {MOST_DEVICES:,}; lower count"
    elif not _is_broken(broken, "cohort") and config.cohort > config.num_devices:
        yield f"cohort: {config.cohort} devices a round, but the groups have only {config.num_devices}"


def _names(config: RunConfig, broken: Collection[str], _cpus: int) -> Iterator[str]:
    fine = [
        g.name
        for i, g in enumerate(config.groups)
        if not _is_broken(broken, f"groups.{i}.name", f"groups.{i}")
    ]
    for name, times in Counter(fine).items():
        if times > 1:
            yield f"groups: {times} of them are named {name!r}; results are shown by name"


def _devices(config: RunConfig, broken: Collection[str], _cpus: int) -> Iterator[str]:
    fine = [
        d.partition_id
        for i, d in enumerate(config.devices)
        if not _is_broken(broken, f"devices.{i}.partition_id", f"devices.{i}")
    ]
    for partition_id, times in Counter(fine).items():
        if times > 1:
            yield f"devices: partition_id {partition_id} is given {times} times"
    if _size_unknown(broken):
        return
    named = {"devices": fine, config.budgets_csv or "budgets": list(config.budgets)}
    for where, ids in named.items():
        outside = sorted({one for one in ids if one >= config.num_devices})
        if outside:
            listed = ", ".join(map(str, outside[:5])) + (" ..." if len(outside) > 5 else "")
            yield f"{where}: partition_id {listed}: the fleet has devices 0 to {config.num_devices - 1}"


def _owners(config: RunConfig) -> Iterator[tuple[str, GroupConfig | DeviceConfig]]:
    yield from ((f"groups[{i}]", group) for i, group in enumerate(config.groups))
    yield from ((f"devices[{i}]", device) for i, device in enumerate(config.devices))


def _resources(config: RunConfig, _broken: Collection[str], _cpus: int) -> Iterator[str]:
    for where, owner in _owners(config):
        yield from (f"{where}.{problem}" for problem in resources.problems(owner))


def _schedules(config: RunConfig, broken: Collection[str], _cpus: int) -> Iterator[str]:
    for where, owner in _owners(config):
        starts = [change.round for change in owner.schedule]
        if len(set(starts)) < len(starts):
            yield f"{where}.schedule: a round is given twice: {starts}"
        late = [start for start in starts if start > config.rounds]
        if late and not _is_broken(broken, "rounds"):
            yield f"{where}.schedule: round {late[0]} is never reached, as rounds is {config.rounds}"


def _method(config: RunConfig, broken: Collection[str], _cpus: int) -> Iterator[str]:
    method = config.method
    if any(place.startswith(("method.name", "method.methods")) for place in broken):
        return
    unknown = list(_unknown_methods(method))
    if unknown:
        yield from unknown
        return
    recipe = method.recipe
    if method.methods is not None and len(method.methods) == 0:
        yield 'method.methods: empty; leave it out, or name = "head" to train the classifier alone'
    if recipe.selection == "published" and method.methods is not None:
        yield f'method.methods: "{method.name}" is ASI alone; leave methods out'
    elif method.selection == "published" and method.methods not in (None, (ASI.kind,)):
        yield 'method.selection: "published" picks ASI ranks only; with other methods use selection = "exact"'
    elif method.selection == "published" and method.methods is None and not _is_asi(method):
        yield f'method.selection: "published" picks ASI ranks; with name = "{method.name}" use selection = "exact"'
    yield from _method_settings(method)


def _unknown_methods(method: MethodConfig) -> Iterator[str]:
    asked = [("method.name", method.name, recipe_names())]
    asked += [
        (f"method.methods[{place}]", name, family_names()) for place, name in enumerate(method.methods or ())
    ]
    for where, name, known in asked:
        if own_code.is_own(name):
            yield from _problem_of(where, partial(base.own, name))
        elif where != "method.name" and "(" in name:  # a call with settings
            yield from _problem_of(where, partial(parse, name))
        elif name not in known:
            yield unknown_value(where, name, known)


def _problem_of(where: str, find: Callable[[], object]) -> Iterator[str]:
    """Yield what is wrong with something that is found by name."""
    try:
        find()
    except ConfigError as error:
        yield f"{where}: {error}"


def _is_asi(method: MethodConfig) -> bool:
    families = method.recipe.families or ()
    return len(families) == 1 and families[0].method is ASI


def _method_settings(method: MethodConfig) -> Iterator[str]:
    """Yield unknown settings, settings of other methods, and wrong values of the method's own."""
    known = [*MethodConfig.model_fields, *method.recipe.settings]
    for key in method.settings:
        if key not in known:
            owners = [f'"{name}"' for name in recipe_names() if key in recipe_of(name).settings]
            hint = f'only for {" and ".join(owners)}; name is "{method.name}"' if owners else ""
            yield f"method.{key}: {hint or 'unknown key; ' + nearest(key, known)}"
    if all(key in known for key in method.settings):
        try:
            method.recipe.families_with(method.settings)
        except ConfigError as error:
            yield from (f"method: {problem}" for problem in error.problems)


def _data(config: RunConfig, broken: Collection[str], _cpus: int) -> Iterator[str]:
    public = config.data.public
    if _is_broken(broken, "data", "model", "method"):
        return
    trains = config.model.weights == "public"
    if public < 1:
        first = (
            'model.weights = "public" trains the network on them first'
            if trains
            else "the server calibrates on some"
        )
        yield f"data.public: 0 images, but {first}"
    elif trains and public < 2:
        yield f'data.public: 1 image, but model.weights = "public" trains on them first, and {_NO_VARIANCE}'
    if not trains or _is_broken(broken, "pretrain"):
        return
    if config.pretrain.batch_size < 2:
        yield f"pretrain.batch_size: 1, but {_NO_VARIANCE}; use 2 or more"
    if config.pretrain.head_epochs:
        yield (
            f'pretrain.head_epochs: {config.pretrain.head_epochs}, but model.weights = "public" trains the whole '
            "network, its head included; use pretrain.epochs"
        )


def _faults(config: RunConfig, _broken: Collection[str], _cpus: int) -> Iterator[str]:
    yield from (f"faults: {problem}" for problem in faults.problems(config.faults))


def _known(config: RunConfig, broken: Collection[str], _cpus: int) -> Iterator[str]:
    """Yield unknown names of networks, data sets, over-budget policies and sharding schemes."""
    if not _stands_in("model.name", broken):
        yield from _problem_of("model.name", partial(models.canonical, config.model.name))
    if not _stands_in("data.source", broken):
        yield from _source(config.data.source)
    if not _stands_in("method.over_budget", broken):
        policy = config.method.over_budget
        if own_code.is_own(policy):
            yield from _problem_of("method.over_budget", partial(over_budget.check_known, policy))
        elif policy not in over_budget.names():
            yield unknown_value("method.over_budget", policy, over_budget.names())
    if not _stands_in("sharding.scheme", broken):
        yield from sharding.problems(config.sharding)


def _source(source: str) -> Iterator[str]:
    if own_code.is_own(source) or libraries.is_library(source):
        yield from _problem_of("data.source", partial(sources.find, source))
    elif source not in sources.names() and not sources.is_path(source):
        yield f"{unknown_value('data.source', source, sources.names())} Or an .npz file's path"


def _engine(config: RunConfig, broken: Collection[str], _cpus: int) -> Iterator[str]:
    asked, features = config.compute.trunk_engine, config.compute.features
    if asked == "torch" or _is_broken(broken, "compute.trunk_engine"):
        return
    yield from _problem_of("compute.trunk_engine", engines.check_installed)
    if features == "off":
        yield f'compute.trunk_engine: "{asked}" computes features to store, but features = "off" stores none'


def _gradients_at(config: RunConfig, broken: Collection[str], _cpus: int) -> Iterator[str]:
    train, compute = config.train, config.compute
    if compute.gradients_at == "micro-batch" or _is_broken(broken, "train", "compute"):
        return
    asked = compute.gradients_at
    whose = (
        "a batch with the weights from its"
        if asked == "batch"
        else f"{asked} images with the weights from their"
    )
    named = f'"{asked}"' if asked == "batch" else asked
    start = f"compute.gradients_at: {named} computes the gradients of {whose} start"
    if set(train.updates) == {"step"}:
        yield f'{start}, which train.update = "step" does anyway. Leave it out'
    elif train.momentum > 0.0:
        yield f"{start}, and momentum builds up from micro-batch to micro-batch. Set train.momentum = 0"
    elif train.clip_norm is not None and train.update == "micro-batch":
        yield (
            f'{start}, and train.update = "micro-batch" clips each over all layers, which takes them one by one. Set '
            'train.clip_norm = "off", or train.update = "layer", which clips by layer'
        )
    if not compute.side_by_side:
        yield f"{start}, to have them side by side, and compute.side_by_side is false. Leave one out"


def _aggregate(config: RunConfig, broken: Collection[str], _cpus: int) -> Iterator[str]:
    run = None
    if not any(_stands_in(place, broken) for place in ("cohort", "train.momentum", "train.update")):
        train = config.train
        run = Conditions(config.cohort, train.momentum, train.update, config.aggregate.weighted)
    if not _stands_in("aggregate.strategy", broken):
        yield from aggregate.problems(config.aggregate, run)
    if not _stands_in("upload.codec", broken):
        yield from aggregate.upload_problems(config.upload)


def _cpus(config: RunConfig, broken: Collection[str], available: int) -> Iterator[str]:
    compute = config.compute
    if compute.backend != "flower" or compute.ray_address is not None or _is_broken(broken, "compute"):
        return
    if compute.cpus_per_client > available:
        yield f"compute.cpus_per_client: {compute.cpus_per_client}, but this machine has {available} CPUs"
    elif compute.workers is not None and compute.workers * compute.cpus_per_client > available:
        yield (
            f"compute.workers: {compute.workers} workers of {compute.cpus_per_client} CPUs each, "
            f"but this machine has {available}"
        )
