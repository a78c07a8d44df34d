"""The private parts of Flower 1.41 and 1.42 that deploy/ uses, each loaded when it is first used.

Only flwr.app, flwr.clientapp and flwr.serverapp are public. They are not enough for a SuperLink, or for a worker that
keeps its process, so the other parts needed are listed here, once, with their purpose.
tests/deploy/test_flwr_private.py fails with the name of a part that moved. Because parts are loaded late, a SuperLink
does not load a device's parts.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from flwr.cli.install import install_from_fab as install_from_fab
    from flwr.cli.supernode.register import try_load_public_key as try_load_public_key
    from flwr.clientapp.utils import get_load_client_app_fn as get_load_client_app_fn
    from flwr.common.constant import FLWR_INTERNAL_GRPC_CONTROL_API as FLWR_INTERNAL_GRPC_CONTROL_API
    from flwr.common.constant import FLWR_INTERNAL_GRPC_FLEET_API as FLWR_INTERNAL_GRPC_FLEET_API
    from flwr.common.constant import ErrorCode as ErrorCode
    from flwr.common.constant import Status as Status
    from flwr.common.constant import SubStatus as SubStatus
    from flwr.proto.control_pb2 import ListNodesRequest as ListNodesRequest
    from flwr.proto.control_pb2 import ListRunsRequest as ListRunsRequest
    from flwr.proto.control_pb2 import RegisterNodeRequest as RegisterNodeRequest
    from flwr.proto.control_pb2 import StopRunRequest as StopRunRequest
    from flwr.proto.runtime_pb2 import AcquireTaskRequest as AcquireTaskRequest
    from flwr.proto.runtime_pb2 import SendTaskHeartbeatRequest as SendTaskHeartbeatRequest
    from flwr.supercore.constant import TaskType as TaskType
    from flwr.supercore.control import ControlHttpClient as ControlHttpClient
    from flwr.supercore.fab import Fab as Fab
    from flwr.supercore.heartbeat import HeartbeatSender as HeartbeatSender
    from flwr.supercore.http_logging import get_uvicorn_log_config as get_uvicorn_log_config
    from flwr.supercore.interceptors import RuntimeTokenHttpInterceptor as RuntimeTokenHttpInterceptor
    from flwr.supercore.interceptors import RuntimeVersionHttpInterceptor as RuntimeVersionHttpInterceptor
    from flwr.supercore.logger import console_handler as console_handler
    from flwr.supercore.retry import make_simple_http_retry_invoker as make_simple_http_retry_invoker
    from flwr.supercore.run import Run as Run
    from flwr.supercore.runtime import RuntimeHttpClient as RuntimeHttpClient
    from flwr.supercore.task_identity import TaskIdentity as TaskIdentity
    from flwr.superlink.cli.flower_superlink import SuperLinkLifespan as SuperLinkLifespan
    from flwr.superlink.cli.flower_superlink import (
        _parse_superlink_lifespan_config as _parse_superlink_lifespan_config,
    )
    from flwr.superlink.main import create_app as create_app
    from flwr.supernode.runtime.run_clientapp import pull_task_input as pull_task_input
    from flwr.supernode.runtime.run_clientapp import push_message as push_message
    from flwr.supernode.runtime.run_clientapp import push_task_output as push_task_output

KNOWN = "1.41 and 1.42"

HOMES = {
    # The SuperLink's container: the application that `flower-superlink` serves, here served behind the gate.
    "_parse_superlink_lifespan_config": "flwr.superlink.cli.flower_superlink",  # its command line
    "SuperLinkLifespan": "flwr.superlink.cli.flower_superlink",  # what starts and stops with it
    "create_app": "flwr.superlink.main",  # its Fleet, Control and Runtime APIs
    "get_uvicorn_log_config": "flwr.supercore.http_logging",  # its server's logging
    "console_handler": "flwr.supercore.logger",
    "FLWR_INTERNAL_GRPC_CONTROL_API": "flwr.common.constant",  # variables that open further ports
    "FLWR_INTERNAL_GRPC_FLEET_API": "flwr.common.constant",
    "try_load_public_key": "flwr.cli.supernode.register",  # enrolment, as `flwr supernode register` does it
    "RegisterNodeRequest": "flwr.proto.control_pb2",
    # The runner's container: which runs and devices exist, asked as `flwr list` and `flwr stop` ask.
    "ControlHttpClient": "flwr.supercore.control",
    "RuntimeVersionHttpInterceptor": "flwr.supercore.interceptors",
    "ListNodesRequest": "flwr.proto.control_pb2",
    "ListRunsRequest": "flwr.proto.control_pb2",
    "StopRunRequest": "flwr.proto.control_pb2",
    "Status": "flwr.common.constant",
    # A device's worker: the messages that Flower's own process for a ClientApp exchanges with the SuperNode.
    "AcquireTaskRequest": "flwr.proto.runtime_pb2",
    "SendTaskHeartbeatRequest": "flwr.proto.runtime_pb2",
    "HeartbeatSender": "flwr.supercore.heartbeat",
    "RuntimeHttpClient": "flwr.supercore.runtime",
    "RuntimeTokenHttpInterceptor": "flwr.supercore.interceptors",
    "make_simple_http_retry_invoker": "flwr.supercore.retry",
    "pull_task_input": "flwr.supernode.runtime.run_clientapp",
    "push_message": "flwr.supernode.runtime.run_clientapp",
    "push_task_output": "flwr.supernode.runtime.run_clientapp",
    "TaskType": "flwr.supercore.constant",
    "ErrorCode": "flwr.common.constant",
    "SubStatus": "flwr.common.constant",
    "Fab": "flwr.supercore.fab",  # only types, of what is sent to the training process
    "Run": "flwr.supercore.run",
    # A device's training process: loads the ClientApp from its bundle.
    "TaskIdentity": "flwr.supercore.task_identity",
    "install_from_fab": "flwr.cli.install",
    "get_load_client_app_fn": "flwr.clientapp.utils",
}


class FlowerMovedError(ImportError):
    """This version of Flower does not have a private part where it is expected; the text is one line."""


def __getattr__(name: str) -> Any:
    """Return a part by its name. Raises FlowerMovedError if this version of Flower does not have it."""
    if name not in HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        return getattr(import_module(HOMES[name]), name)
    except (ModuleNotFoundError, AttributeError) as error:
        moved = f"Flower has no {HOMES[name]}.{name} any more ({error})"
        raise FlowerMovedError(f"{moved}: deploy/ fits flwr {KNOWN}") from error
