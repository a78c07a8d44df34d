"""The process that runs a device's ClientApp: the one that the kernel kills when memory runs out."""

from __future__ import annotations

import importlib
import os
import signal
import traceback
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from deploy import flwr_private

_BALLAST: list[bytearray] = []


def trainer_main(pipe: Connection) -> None:
    """Answer (run, app bundle, message, context) with (reply, context) until the pipe is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _offer_to_the_kernel()
    import torch

    importlib.import_module("flwr.clientapp")

    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    apps: dict[str, Any] = {}
    while True:
        try:
            run, fab, message, context = pipe.recv()
        except EOFError:
            return
        pipe.send(_answer(apps, run, fab, message, context))
        del run, fab, message, context


def _offer_to_the_kernel() -> None:
    # The kernel must choose this process of all in the container, because its death can be reported.
    Path("/proc/self/oom_score_adj").write_text("1000")


def _answer(apps: dict[str, Any], run: Any, fab: Any, message: Any, context: Any) -> tuple[Any, Any]:
    from flwr.app import Error, Message

    identity = flwr_private.TaskIdentity
    identity.run_id, identity.node_id = context.run_id, context.node_id
    try:
        if message.metadata.message_type.startswith("train"):
            _carry_ballast()
        return _app(apps, run, fab)(message=message, context=context), context
    except Exception as error:
        traceback.print_exc()
        reason = f"{type(error).__name__}: {error}"
        code = flwr_private.ErrorCode.CLIENT_APP_RAISED_EXCEPTION
        return Message(Error(code, reason), reply_to=message), context


def _app(apps: dict[str, Any], run: Any, fab: Any) -> Any:
    if fab.hash_str not in apps:
        flwr_private.install_from_fab(fab.content, skip_prompt=True)
        load = flwr_private.get_load_client_app_fn(default_app_ref="", app_path=None, multi_app=True)
        apps[fab.hash_str] = load(run.fab_id, run.fab_version, fab.hash_str)
    return apps[fab.hash_str]


def _carry_ballast() -> None:
    """Allocate FED_ASI_BALLAST_MIB more than the device was planned for, to show what the kernel does about it."""
    size = int(os.environ.get("FED_ASI_BALLAST_MIB", "0")) * 2**20
    if size and not _BALLAST:
        block = bytearray(size)
        for page in range(0, size, 4096):
            block[page] = 1
        _BALLAST.append(block)
