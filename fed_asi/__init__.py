"""Federated on-device learning, simulated with a memory budget for every device.

The names below are the public API; each is loaded when it is first used, so `import fed_asi` stays quick.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fed_asi import data as data
    from fed_asi import errors as errors
    from fed_asi import models as models
    from fed_asi.compression.compress import compress_ as compress_
    from fed_asi.compression.compress import uncompress_ as uncompress_
    from fed_asi.compression.tune import tune_ as tune_
    from fed_asi.compression.tune import tune_last_ as tune_last_
    from fed_asi.errors import FedAsiError as FedAsiError
    from fed_asi.memory.arena.planned import arena as arena
    from fed_asi.memory.costs import cost as cost
    from fed_asi.memory.device import device_memory as device_memory
    from fed_asi.memory.meter import ActivationMeter as ActivationMeter
    from fed_asi.methods import ASI as ASI
    from fed_asi.methods import HOSVD as HOSVD
    from fed_asi.methods import BiasOnly as BiasOnly
    from fed_asi.methods import FixedSubspace as FixedSubspace
    from fed_asi.methods import Frozen as Frozen
    from fed_asi.methods import GradientFilter as GradientFilter
    from fed_asi.methods import Method as Method
    from fed_asi.methods import Quantized as Quantized
    from fed_asi.methods import SpatialMean as SpatialMean
    from fed_asi.methods import Vanilla as Vanilla
    from fed_asi.planning.calibration import profile as profile
    from fed_asi.planning.plan import Plan as Plan
    from fed_asi.planning.profile import Profile as Profile
    from fed_asi.planning.search import plan as plan
    from fed_asi.training.device_bench import device_bench as device_bench

__version__ = "0.1.0"

_HOME = {
    "ActivationMeter": "memory.meter",
    "FedAsiError": "errors",
    "Plan": "planning.plan",
    "Profile": "planning.profile",
    "arena": "memory.arena.planned",
    "compress_": "compression.compress",
    "cost": "memory.costs",
    "device_bench": "training.device_bench",
    "device_memory": "memory.device",
    "plan": "planning.search",
    "profile": "planning.calibration",
    "tune_": "compression.tune",
    "tune_last_": "compression.tune",
    "uncompress_": "compression.compress",
    **dict.fromkeys(
        (
            "ASI", "HOSVD", "BiasOnly", "FixedSubspace", "Frozen", "GradientFilter", "Method", "Quantized",
            "SpatialMean", "Vanilla",
        ),
        "methods",
    ),
}  # fmt: skip
_MODULES = ("data", "errors", "models")


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return import_module(f"fed_asi.{name}")
    if name in _HOME:
        return getattr(import_module(f"fed_asi.{_HOME[name]}"), name)
    raise AttributeError(f"module 'fed_asi' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*_HOME, *_MODULES, "__version__"])
