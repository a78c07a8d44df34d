"""A device's side of Flower: it says who it is, and does its jobs. It translates; `fed_asi.devices` works."""

from __future__ import annotations

import socket

from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp

from fed_asi.devices.reply import answer
from fed_asi.errors import RunError
from fed_asi.flower import messages, worker
from fed_asi.flower.device_state import DeviceState
from fed_asi.flower.ray_private import keep_actors_alive


def client_app() -> ClientApp:
    """Return the ClientApp of every device."""
    keep_actors_alive()
    app = ClientApp()
    app.query()(who)
    app.train()(train)
    return app


def who(message: Message, context: Context) -> Message:
    """Answer with the device's partition id, its own budget where it was given one, and its host."""
    known: dict[str, str | int] = {
        "partition-id": partition_id(context),
        "host": socket.gethostname(),
    }
    if "budget" in context.node_config:
        known["budget"] = int(context.node_config["budget"])
    return Message(RecordDict({"who": ConfigRecord(dict(known))}), reply_to=message)


def train(message: Message, context: Context) -> Message:
    """Do one job: plan, train within the budget, answer with the update and what is to be recorded."""
    job, tensors, run = messages.read_job(message.content)
    own = partition_id(context)
    if job.partition_id != own:
        raise RunError(f"a job for device {job.partition_id} reached device {own}")
    state = DeviceState(context.state, worker.state_folder(run))
    with worker.at_work(run, job):
        place = worker.workplace(run)
        factors = state.factors(job)
        reply, kept = answer(place, worker.within_own_budget(job, context.node_config), tensors, factors)
        state.keep(job, kept)
    return Message(messages.write_reply(reply), reply_to=message)


def partition_id(context: Context) -> int:
    """Return the device's number. Raises RunError where its node was started without one."""
    if "partition-id" not in context.node_config:
        raise RunError("this node has no partition-id: start it with --node-config 'partition-id=0 ...'")
    return int(context.node_config["partition-id"])
