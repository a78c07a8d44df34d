"""What Flower and Ray must find in the environment before either is imported (each line has its reason)."""

from __future__ import annotations

import os
from pathlib import Path

QUIET = {
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",  # else each run fetches the dependencies anew
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # Ray on loopback alone
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
    "RAY_DEDUP_LOGS": "0",
}


KEEPS_GPUS = (  # else a worker sees its own GPU alone, as number 0; the second is AMD's
    "RAY_EXPERIMENTAL_NOSET_CUDA_VISIBLE_DEVICES",
    "RAY_EXPERIMENTAL_NOSET_HIP_VISIBLE_DEVICES",
)


def set_environment(home: Path, *, named_gpu: bool = False) -> None:
    """Set what is needed, in this process and those it starts.

    home: Flower's own folder. named_gpu: whether workers use the GPU of a number, and not the one that Ray gives them.
    """
    os.environ.update(QUIET | dict.fromkeys(KEEPS_GPUS, str(int(named_gpu))))
    os.environ["FLWR_HOME"] = str(home.resolve())
    home.mkdir(parents=True, exist_ok=True)
