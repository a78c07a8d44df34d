"""A device's worker: takes messages from its SuperNode and trains in one long-lived child process.

Flower's own SuperExec starts a new process, and imports torch, for every message. Here the child is started once, so
model and data stay loaded, and its death is noticed at once: if the kernel kills it for exceeding the container's
memory limit, the worker answers in its place and gives the reason.

`python -m deploy.worker --device 0 --runtime 127.0.0.1:9094`
"""

from __future__ import annotations

import argparse
import contextlib
import multiprocessing
import socket
import threading
import time
import traceback
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any

import httpx
from flwr.app import Context, Error, Message

from deploy.flwr_private import (
    AcquireTaskRequest,
    ErrorCode,
    Fab,
    HeartbeatSender,
    Run,
    RuntimeHttpClient,
    RuntimeTokenHttpInterceptor,
    RuntimeVersionHttpInterceptor,
    SendTaskHeartbeatRequest,
    SubStatus,
    TaskType,
    make_simple_http_retry_invoker,
    pull_task_input,
    push_message,
    push_task_output,
)
from deploy.memory import killed_by_kernel_count, limit_bytes
from deploy.settings import say
from deploy.trainer import trainer_main

_POLL_S = 0.2
LATE = 75  # exit code of a ClientApp that ends itself because its device hangs (fed_asi/flower/worker.py)


@dataclass(slots=True)
class Trainer:
    """The child process that runs the ClientApp; it is restarted when it dies."""

    device: int
    process: BaseProcess | None = None
    pipe: Connection | None = None
    lock: threading.Lock = field(default_factory=threading.Lock)

    def start(self) -> tuple[BaseProcess, Connection]:
        """Start the child, which imports torch while there is no message to answer."""
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=trainer_main, args=(theirs,), daemon=True)
        self.process.start()
        theirs.close()
        return self.process, self.pipe

    def answer(
        self, run: Run, fab: Fab, message: Message, context: Context
    ) -> tuple[Message, Context | None]:
        """Return the reply to one message and the new context; if the child dies, the reply is an error."""
        process, pipe = self.ready()
        kills = killed_by_kernel_count()
        try:
            pipe.send((run, fab, message, context))
            if not pipe.poll(seconds_left(message)):
                process.kill()
            answer: tuple[Message, Context] = pipe.recv()
        except (EOFError, OSError):
            process.join(10)
            cause = self.cause_of_death(process.exitcode, kills)
            say(f"device {self.device}", cause)
            self.start()
            return Message(Error(ErrorCode.CLIENT_APP_CRASHED, cause), reply_to=message), None
        return answer

    def ready(self) -> tuple[BaseProcess, Connection]:
        """Return a running child and the pipe to it."""
        if self.process is None or self.pipe is None or not self.process.is_alive():
            return self.start()
        return self.process, self.pipe

    def cause_of_death(self, code: int | None, kills_before: int) -> str:
        """Return why the child is gone, for people and for the run's records."""
        if code == -9 and killed_by_kernel_count() > kills_before:
            limit = limit_bytes()
            room = f"{limit / 2**20:.0f} MiB" if limit else "the machine's memory"
            where = f"the kernel stopped device {self.device} at its container's limit of {room}"
            return f"killed: out of memory: {where}"
        if code == LATE:
            return f"timeout: device {self.device} passed its deadline, its training process was ended"
        if code is not None and code < 0:
            return f"killed: signal {-code} ended the training process of device {self.device}"
        return f"killed: the training process of device {self.device} ended with exit code {code}"


def seconds_left(message: Message) -> float:
    """Return how much longer the sender of `message` waits for an answer."""
    return max(1.0, message.metadata.created_at + message.metadata.ttl - time.time())


def serve(runtime: str, trainer: Trainer) -> None:
    """Take one message after another from the SuperNode, forever."""
    client = _client(runtime)
    trainer.start()
    while True:
        try:
            task = client.AcquireTask(AcquireTaskRequest(supported_task_types=[TaskType.CLIENT_APP]))
            if task.HasField("task") and task.token:
                # In a thread: waiting for a message never ends if its run was stopped while the message came in.
                threading.Thread(target=_handle, args=(runtime, task.token, trainer), daemon=True).start()
                continue
        except httpx.HTTPError as error:
            problem = f"the SuperNode does not answer ({type(error).__name__}): trying again"
            say(f"device {trainer.device}", problem)
            time.sleep(1.0)
        time.sleep(_POLL_S)


def _handle(runtime: str, token: str, trainer: Trainer) -> None:
    client = _client(runtime, RuntimeTokenHttpInterceptor(token))
    heartbeat = HeartbeatSender(lambda: _beat(client))
    heartbeat.start()
    context: Context | None = None
    status: str = SubStatus.FAILED
    details = ""
    try:
        message, before, run, fab = pull_task_input(client)
        with trainer.lock:  # one message at a time
            reply, context = trainer.answer(run, fab, message, before)
        if reply.has_content():
            status = SubStatus.COMPLETED
        else:
            details = str(reply.error.reason)
        push_message(client, reply, before)
    except Exception as error:  # whatever Flower raises: the message is lost, but the device is not
        details = f"{type(error).__name__}: {error}"
        say(f"device {trainer.device}", traceback.format_exc())
    finally:
        push_task_output(client=client, context=context, sub_status=status, details=details)
        heartbeat.stop()
        client.close()


def _beat(client: RuntimeHttpClient) -> bool:
    # Flower's own function ends the whole process when the SuperNode has ended the task, as after a stop.
    with contextlib.suppress(httpx.HTTPError):
        client.SendTaskHeartbeat(SendTaskHeartbeatRequest())
    return True


def _client(runtime: str, *interceptors: Any) -> RuntimeHttpClient:
    return RuntimeHttpClient.from_server_address(
        server_address=runtime,
        insecure=True,
        root_certificates=None,
        interceptors=[RuntimeVersionHttpInterceptor(component_name="flwr-clientapp"), *interceptors],
        retry_invoker=make_simple_http_retry_invoker(),
    )


def main() -> None:
    """Serve one device's messages until told to stop."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--device", type=int, required=True)
    parser.add_argument("--runtime", required=True)
    arguments = parser.parse_args()
    host, port = arguments.runtime.split(":")
    _wait_for_port(host, int(port))
    serve(arguments.runtime, Trainer(arguments.device))


def _wait_for_port(host: str, port: int) -> None:
    while True:
        try:
            socket.create_connection((host, port), timeout=1).close()
            return
        except OSError:
            time.sleep(_POLL_S)


if __name__ == "__main__":
    main()
