"""The structure of the package: rooms by role, imports downward only, Flower, Ray and private parts in their places.

Every import counts, also those inside functions and for type checkers.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[1]

# From the bottom up: a room imports from rooms above it in this list, and its own files from each other.
ROOMS = [
    "errors", "texts", "units", "seeds", "machine", "allocator", "gpus", "tucker", "files", "torch_private",
    "libraries", "own_code", "waiting",
    "methods",  # how an input is kept
    "layers",  # kinds of layers
    "memory",  # what a step keeps and costs
    "compression",  # a network made to keep less
    "storage",  # weights as a device stores them
    "models", "data",  # what is trained, on what
    "strategies", "codecs",  # what becomes of updates, and how they are written
    "fleets",  # what a fleet file says
    "sinks",  # where a run is sent as it goes on
    "results",  # records, and how they are read
    "planning",  # from a calibration batch to a plan
    "training",  # steps, sgd, evaluation
    "workplace",  # what training needs at one place
    "devices",  # what one device does
    "rounds",  # the loop
    "flower",  # Flower and Ray
    "studies",  # many runs as one comparison
    "commands", "__main__",
]  # fmt: skip
LEVEL = {room: level for level, room in enumerate(ROOMS)}
KNOW_FLOWER = ("fed_asi/flower", "clients", "server", "deploy")

# Imports inside functions, each with its reason: "speed" keeps a quick start quick, "optional" may be missing,
# "environment" must wait until the environment is set, which Flower and Ray read when they are imported.
LATE: dict[tuple[str, str], str] = {
    ("deploy.trainer", "flwr"): "speed: the child says it lives before it loads Flower",
    ("deploy.trainer", "torch"): "speed: the same",
    (
        "fed_asi.commands.run",
        "fed_asi.fleets.checks",
    ): "speed: help and mistakes on the command line cost no torch",
    ("fed_asi.commands.run", "fed_asi.fleets.file"): "speed: the same",
    (
        "fed_asi.commands.run",
        "fed_asi.flower.simulation",
    ): "optional: a run on the plain loop needs neither Flower nor Ray",
    ("fed_asi.commands.run", "fed_asi.results.lock"): "speed: the same",
    ("fed_asi.commands.run", "fed_asi.results.now"): "speed: the same",
    ("fed_asi.commands.run", "fed_asi.results.progress"): "speed: the same",
    ("fed_asi.commands.run", "fed_asi.results.report"): "speed: the same",
    ("fed_asi.commands.run", "fed_asi.results.store"): "speed: the same",
    ("fed_asi.commands.run", "fed_asi.rounds.run"): "speed: the same",
    ("fed_asi.commands.study", "fed_asi.results.lock"): "speed: the same",
    ("fed_asi.commands.study", "fed_asi.studies.agenda"): "speed: the same",
    (
        "fed_asi.commands.study",
        "fed_asi.studies.cluster",
    ): "optional: a study on this machine needs neither Flower nor Ray",
    ("fed_asi.commands.study", "fed_asi.studies.ledger"): "speed: the same",
    ("fed_asi.commands.study", "fed_asi.studies.findings"): "speed: the same",
    ("fed_asi.commands.study", "fed_asi.studies.report"): "speed: the same",
    ("fed_asi.commands.study", "fed_asi.studies.tables"): "speed: the same",
    ("fed_asi.commands.study", "fed_asi.studies.runner"): "speed: the same",
    ("fed_asi.commands.study", "fed_asi.studies.study_file"): "speed: the same",
    ("fed_asi.commands.study", "fed_asi.studies.workers"): "speed: the same",
    (
        "fed_asi.data.downloaded",
        "fed_asi.models.torchvision_shim",
    ): "speed: torchvision, where a data set is its",
    ("fed_asi.data.engines", "onnxruntime"): "optional: trunk_engine alone needs it",
    ("fed_asi.data.libraries.flwr_datasets", "datasets"): "optional: its names alone need it",
    ("fed_asi.data.libraries.flwr_datasets", "flwr_datasets"): "optional: the same",
    ("fed_asi.data.libraries.hf", "PIL"): "speed: where images are of several sizes",
    ("fed_asi.data.libraries.hf", "datasets"): "optional: its names alone need it",
    ("fed_asi.models.libraries.timm", "fed_asi.models.torchvision_shim"): "speed: with timm alone",
    (
        "fed_asi.models.download",
        "huggingface_hub",
    ): "optional: other libraries' weights and data alone need it",
    ("fed_asi.models.libraries.timm", "timm"): "optional: its names alone need it",
    ("fed_asi.data.images", "PIL"): "speed: where images are files",
    ("fed_asi.data.sources", "sklearn"): "speed: where the data are its digits",
    (
        "fed_asi.flower.flower_private",
        "flwr",
    ): "environment: clients and servers load this before they know whether Flower simulates",
    ("fed_asi.flower.ray_private", "flwr"): "environment: the same",
    ("fed_asi.flower.ray_private", "ray"): "environment: the same",
    ("fed_asi.flower.depot", "ray"): "environment: the same",
    ("fed_asi.flower.ray_start", "ray"): "environment: Ray reads it when it is imported",
    ("fed_asi.flower.ray_tasks", "ray"): "environment: the same",
    (
        "fed_asi.flower.simulation",
        "fed_asi.flower.client",
    ): "environment: Flower reads it when it is imported",
    ("fed_asi.flower.simulation", "fed_asi.flower.executor"): "environment: the same",
    ("fed_asi.flower.simulation", "fed_asi.flower.ray_start"): "environment: the same",
    ("fed_asi.flower.simulation", "flwr"): "environment: the same",
    ("fed_asi.memory.peak", "torch"): "speed: torch's profiler, where a peak is measured",
    (
        "fed_asi.models.registry",
        "fed_asi.models.torchvision_shim",
    ): "speed: torchvision, where a network is its",
    ("fed_asi.models.torchvision_shim", "torchvision"): "speed: the same",
    ("fed_asi.models.weights", "fed_asi.models.torchvision_shim"): "speed: the same",
    ("fed_asi.planning.figure", "matplotlib"): "speed: where a plan is drawn",
    ("fed_asi.planning.least", "scipy"): "speed: where more than bytes binds a plan",
    ("fed_asi.results.estimate", "scipy"): "speed: where there are devices enough for an interval",
    ("fed_asi.sinks.mlflow", "mlflow"): "optional: the sink alone needs it",
    ("fed_asi.sinks.wandb", "wandb"): "optional: the same",
    ("fed_asi.commands.run", "fed_asi.sinks"): "speed: the same",
    ("fed_asi.commands.run", "fed_asi.results.sending"): "speed: the same",
    ("fed_asi.commands.watch", "fed_asi.results.serving"): "speed: matplotlib, where a page is served",
    ("fed_asi.results.export", "pyarrow"): "optional: Parquet alone needs it",
    ("fed_asi.results.report", "fed_asi.results.figures"): "speed: matplotlib, where a page is written",
    ("fed_asi.results.report", "fed_asi.results.page"): "speed: the same",
}

# Modules without a test file of their own, and the one in tests/ that holds them.
HELD = {
    "fed_asi.__main__": "commands/test_main.py",
    "fed_asi.codecs.float16": "codecs/test_base.py",
    "fed_asi.codecs.int8": "codecs/test_base.py",
    "fed_asi.codecs.plain": "codecs/test_base.py",
    "fed_asi.codecs.top_k": "codecs/test_base.py",
    "fed_asi.commands.compose_file": "commands/test_compose.py",
    "fed_asi.commands.plan_device": "planning/test_tables.py",
    "fed_asi.commands.plan": "planning/test_tables.py",
    "fed_asi.compression.asked": "compression/test_compress.py",
    "fed_asi.compression.report": "compression/test_compress.py",
    "fed_asi.compression.swapping": "compression/test_compress.py",
    "fed_asi.fleets.clock_keys": "fleets/test_clock_checks.py",
    "fed_asi.fleets.pace_checks": "fleets/test_pace.py",
    "fed_asi.layers.thresholds": "layers/test_depthwise.py",
    "fed_asi.memory.arena.split": "memory/arena/test_shares.py",
    "fed_asi.memory.arena.stretches": "memory/arena/test_shares.py",
    "fed_asi.training.rules": "training/test_whole_step.py",
    "fed_asi.workplace.benches": "training/test_whole_step.py",
    "fed_asi.workplace.opening": "workplace/test_place.py",
    "fed_asi.workplace.shard": "workplace/test_needs.py",
    "fed_asi.workplace.uses": "rounds/test_resolutions.py",
    "fed_asi.planning.bench": "planning/test_whole_device.py",
    "fed_asi.planning.forms_known": "planning/test_whole_device.py",
    "fed_asi.planning.within": "planning/test_whole_device.py",
    "fed_asi.planning.device_search": "planning/test_whole_device.py",
    "fed_asi.fleets.resolution_checks": "fleets/test_resolution.py",
    "fed_asi.fleets.storage": "fleets/test_config.py",
    "fed_asi.layers.absorbed": "compression/test_exactness.py",
    "fed_asi.layers.classes": "layers/test_conformance.py",
    "fed_asi.layers.compressed": "layers/test_conformance.py",
    "fed_asi.layers.conv": "layers/test_conformance.py",
    "fed_asi.layers.convolution": "layers/test_fused.py",
    "fed_asi.layers.copying": "planning/test_calibration.py",
    "fed_asi.layers.draws": "compression/test_exactness.py",
    "fed_asi.layers.function": "layers/test_fused.py",
    "fed_asi.layers.geometry": "layers/test_conformance.py",
    "fed_asi.layers.gradient": "layers/test_thin.py",
    "fed_asi.layers.gradient_filter": "layers/test_fused.py",
    "fed_asi.layers.linear": "layers/test_conformance.py",
    "fed_asi.layers.masks": "layers/test_activation.py",
    "fed_asi.layers.operation": "layers/test_thin.py",
    "fed_asi.layers.slices": "methods/test_channels.py",
    "fed_asi.layers.tucker_gradient": "layers/test_conformance.py",
    "fed_asi.layers.weightless": "compression/test_compress.py",
    "fed_asi.memory.arena.proof": "memory/arena/test_replay.py",
    "fed_asi.memory.arena.trace": "memory/arena/test_recorder.py",
    "fed_asi.memory.inner_hooks": "memory/test_meter.py",
    "fed_asi.memory.storages": "memory/test_meter.py",
    "fed_asi.methods.asi": "layers/test_conformance.py",
    "fed_asi.methods.bases": "planning/test_calibrated_plans.py",
    "fed_asi.methods.bias_only": "methods/test_base.py",
    "fed_asi.methods.family": "planning/test_calibration.py",
    "fed_asi.methods.fixed_subspace": "layers/test_conformance.py",
    "fed_asi.methods.forms": "layers/test_conformance.py",
    "fed_asi.methods.frozen": "methods/test_base.py",
    "fed_asi.methods.gradient_filter": "memory/test_costs.py",
    "fed_asi.methods.hosvd": "layers/test_conformance.py",
    "fed_asi.methods.parts": "layers/test_conformance.py",
    "fed_asi.methods.quantized": "layers/test_conformance.py",
    "fed_asi.methods.ranks": "planning/test_calibration.py",
    "fed_asi.methods.recipe": "fleets/test_config.py",
    "fed_asi.methods.sizes": "memory/test_costs.py",
    "fed_asi.methods.spatial_mean": "layers/test_conformance.py",
    "fed_asi.methods.tucker_method": "memory/test_costs.py",
    "fed_asi.methods.vanilla": "layers/test_conformance.py",
    "fed_asi.models.download": "models/test_weights.py",
    "fed_asi.models.mcunet": "models/test_models.py",
    "fed_asi.models.torchvision_shim": "models/test_networks.py",
    "fed_asi.planning.device_plans": "planning/test_policies.py",
    "fed_asi.planning.duty": "planning/test_device_round.py",
    "fed_asi.planning.figure": "planning/test_tables.py",
    "fed_asi.planning.floors": "planning/test_calibrated_plans.py",
    "fed_asi.planning.gauge": "planning/test_device_round.py",
    "fed_asi.planning.json_file": "planning/test_search.py",
    "fed_asi.planning.knapsack": "planning/test_search.py",
    "fed_asi.planning.plan": "planning/test_tables.py",
    "fed_asi.planning.profile": "planning/test_calibration.py",
    "fed_asi.planning.question": "planning/test_search.py",
    "fed_asi.planning.recording": "planning/test_calibration.py",
    "fed_asi.planning.rivals": "planning/test_tables.py",
    "fed_asi.planning.time_tables": "planning/test_time_frontier.py",
    "fed_asi.planning.timed_problem": "planning/test_in_time.py",
    "fed_asi.planning.trials": "planning/test_calibration.py",
    "fed_asi.planning.wishes": "planning/test_in_time.py",
    "fed_asi.sinks.mlflow": "sinks/test_sinks.py",
    "fed_asi.sinks.tensorboard": "sinks/test_sinks.py",
    "fed_asi.sinks.wandb": "sinks/test_sinks.py",
    "fed_asi.storage.kinds": "storage/test_trunk.py",
    "fed_asi.rounds.asking": "rounds/test_loop.py",
    "fed_asi.rounds.judging": "rounds/test_edges.py",
    "fed_asi.rounds.pace_check": "devices/test_pacing.py",
    "fed_asi.rounds.round_end": "rounds/test_loop.py",
    "fed_asi.rounds.state": "rounds/test_resuming.py",
    "fed_asi.rounds.synchronous": "rounds/test_round_clock.py",
    "fed_asi.strategies.adaptive": "strategies/test_against_flower.py",
    "fed_asi.strategies.by_coordinate": "strategies/test_robust.py",
    "fed_asi.strategies.fedadagrad": "strategies/test_against_flower.py",
    "fed_asi.strategies.fedadam": "strategies/test_against_flower.py",
    "fed_asi.strategies.fedavg": "strategies/test_base.py",
    "fed_asi.strategies.fedavgm": "strategies/test_against_flower.py",
    "fed_asi.strategies.fedprox": "strategies/test_local.py",
    "fed_asi.strategies.fedyogi": "strategies/test_against_flower.py",
    "fed_asi.strategies.krum": "strategies/test_robust.py",
    "fed_asi.strategies.median": "strategies/test_robust.py",
    "fed_asi.strategies.norm_bound": "strategies/test_robust.py",
    "fed_asi.strategies.server_optimizer": "strategies/test_against_flower.py",
    "fed_asi.strategies.trimmed_mean": "strategies/test_robust.py",
    "fed_asi.workplace.ahead": "commands/test_check.py",
    "fed_asi.workplace.profiled": "workplace/test_storing.py",
    "fed_asi.workplace.profiling": "workplace/test_prepare.py",
    "fed_asi.studies.cells": "studies/test_grid.py",
    "fed_asi.studies.keys": "studies/test_grid.py",
    "fed_asi.studies.curves": "studies/test_figures.py",
    "fed_asi.studies.drawing": "studies/test_figures.py",
    "fed_asi.studies.frontier": "studies/test_figures.py",
    "fed_asi.studies.method": "studies/test_page.py",
    "fed_asi.studies.participation": "studies/test_figures.py",
}


def files(*folders: str) -> list[Path]:
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


def name_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {name_of(path): path for path in files("fed_asi", "clients", "server", "deploy")}
API = "fed_asi"  # its __init__ names the public API, for type checkers and by a table


def imported(node: ast.Import | ast.ImportFrom) -> Iterator[str]:
    """Modules that a statement imports, as names of files where they are this project's."""
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
        return
    assert node.level == 0, "imports are absolute"
    for alias in node.names:
        full = f"{node.module}.{alias.name}"
        yield full if full in MODULES else str(node.module)


@cache
def imports(path: Path) -> tuple[tuple[str, bool], ...]:
    """(module, whether it is imported inside a function) for every import of a file."""
    found: list[tuple[str, bool]] = []
    waiting: list[tuple[ast.AST, bool]] = [(ast.parse(path.read_text()), False)]
    while waiting:
        node, inside = waiting.pop()
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            found += ((name, inside) for name in imported(node))
        inside = inside or isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
        statements = (child for child in ast.iter_child_nodes(node) if not isinstance(child, ast.expr))
        waiting.extend((child, inside) for child in statements)
    return tuple(found)


@cache
def graph() -> dict[str, set[str]]:
    return {
        name: {other for other, _ in imports(path) if other in MODULES and other not in {name, API}}
        for name, path in MODULES.items()
        if name != API
    }


def room_of(module: str) -> str:
    parts = module.split(".")
    return parts[1] if parts[0] == "fed_asi" else parts[0]


def circles(edges: dict[str, set[str]]) -> list[list[str]]:
    """Groups of nodes that reach each other."""
    reach: dict[str, set[str]] = {}
    for start, nearest in edges.items():
        seen, waiting = set(), list(nearest)
        while waiting:
            node = waiting.pop()
            if node not in seen:
                seen.add(node)
                waiting += edges.get(node, ())
        reach[start] = seen
    return sorted(
        {tuple(sorted(b for b in reach[a] if a in reach.get(b, ()))) for a in edges if a in reach[a]}
    )


def test_every_room_has_its_place() -> None:
    rooms = {room_of(name) for name in graph() if name.startswith("fed_asi.")}
    assert rooms == set(ROOMS)


def test_imports_run_downward() -> None:
    upward = [
        f"{name} imports {other}"
        for name, others in graph().items()
        for other in others
        if name.startswith("fed_asi.")
        and (not other.startswith("fed_asi.") or LEVEL[room_of(other)] > LEVEL[room_of(name)])
    ]
    assert not upward


def test_there_are_no_circles_between_files_or_rooms() -> None:
    assert circles(graph()) == []
    between: dict[str, set[str]] = {room_of(name): set() for name in graph()}
    for name, others in graph().items():
        between[room_of(name)] |= {room_of(other) for other in others} - {room_of(name)}
    assert circles(between) == []


def test_late_imports_are_listed_with_their_reason() -> None:
    late = {
        (name, other.split(".")[0] if other.split(".")[0] != "fed_asi" else other)
        for name, path in MODULES.items()
        for other, inside in imports(path)
        if inside
    }
    assert late - set(LATE) == set(), "list it with its reason, or import it at the top"
    assert set(LATE) - late == set(), "no longer there"
    assert {reason.split(":")[0] for reason in LATE.values()} <= {"speed", "optional", "environment"}


def test_flower_and_ray_are_known_where_they_belong_alone() -> None:
    for path in files("fed_asi", "clients", "server", "deploy"):
        here = str(path.relative_to(ROOT))
        roots = {name.split(".")[0] for name, _ in imports(path)}
        assert "experiments" not in roots, here
        if not here.startswith(KNOW_FLOWER):
            assert not roots & {"flwr", "ray"}, here


def test_the_apps_do_not_know_each_other() -> None:
    for folder, other in (("clients", "server"), ("server", "clients")):
        for path in files(folder):
            assert other not in {name.split(".")[0] for name, _ in imports(path)}, path


def test_every_package_says_what_it_is_for() -> None:
    for path in files("fed_asi"):
        assert ast.get_docstring(ast.parse(path.read_text())), path


def place_of(module: str) -> str:
    """Return the file in tests/ that a module's place calls for: tests mirror rooms."""
    *rooms, name = module.removeprefix("fed_asi.").split(".")
    return "/".join([*rooms, f"test_{name}.py"])


MIRRORED = sorted(
    name
    for name, path in MODULES.items()
    if path.stem != "__init__" and name.startswith(("fed_asi", "deploy"))
)


def test_every_module_has_its_test_file() -> None:
    """Make the file that is missing, or say in HELD which file holds the module."""
    own = {module: (ROOT / "tests" / place_of(module)).exists() for module in MIRRORED}
    assert [module for module in MIRRORED if not own[module] and module not in HELD] == []
    assert [module for module in HELD if own.get(module)] == []  # to be taken from HELD
    assert [file for file in HELD.values() if not (ROOT / "tests" / file).exists()] == []


def test_only_modules_that_are_there_are_held_by_another_file() -> None:
    assert HELD.keys() <= set(MIRRORED)


def test_import_is_free_of_flower_and_ray() -> None:
    heavy = ("flwr", "ray", "matplotlib", "sklearn", "torchvision")
    every = "fed_asi, fed_asi.commands.main, fed_asi.fleets.file"
    code = f"import sys, {every}; print(*(m for m in {heavy} if m in sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == ""


def test_no_machine_paths_and_no_neighbours() -> None:
    for path in files("fed_asi", "clients", "server", "deploy"):
        text = path.read_text()
        assert "../shared" not in text, path
        assert f"{ROOT}/" not in text, path  # the parent alone may be the start of a container's path


def floors(graph: dict[str, set[str]]) -> int:
    """How many files stand on each other at most, a circle counted as one."""
    group = {name: tuple(sorted({name, *circle})) for name in graph for circle in _circle_of(name, graph)}
    above: dict[tuple[str, ...], int] = {}

    def height(of: tuple[str, ...]) -> int:
        if of not in above:
            below = {group[other] for name in of for other in graph[name] if other in group} - {of}
            above[of] = 1 + max(map(height, below), default=0)
        return above[of]

    return max(height(of) for of in group.values())


def _circle_of(name: str, graph: dict[str, set[str]]) -> list[list[str]]:
    return [circle for circle in circles(graph) if name in circle] or [[]]


if __name__ == "__main__":  # python tests/test_architecture.py: the shape in three numbers
    between = sum(room_of(name) != room_of(other) for name, others in graph().items() for other in others)
    print(
        f"{len(graph())} files in {len({room_of(name) for name in graph()})} rooms, {floors(graph())} floors"
    )
    print(f"{sum(map(len, graph().values()))} import arrows, {between} of them between rooms")
    print(f"circles: {circles(graph()) or 'none'}")
