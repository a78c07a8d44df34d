"""A device's side of Flower: it says who it is, and does its jobs. It translates; `fed_asi.devices` works."""

from __future__ import annotations

import socket

from flwr.app import Context, Message
from flwr.clientapp import ClientApp

from fed_asi.devices.reply import do_job
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
    """Answer with the partition id of the device, its own budget if it was given one, and its host."""
    config = context.node_config
    budget = worker.whole_number(config, "budget", "bytes") if "budget" in config else None
    return Message(messages.write_who(partition_id(context), socket.gethostname(), budget), reply_to=message)


def train(message: Message, context: Context) -> Message:
    """Do one job: plan, train within the budget, answer with the update and what is to be recorded."""
    job, tensors, run = messages.read_job(message.content)
    own = partition_id(context)
    if job.partition_id != own:
        raise RunError(f"a job for device {job.partition_id} reached device {own}")
    state = DeviceState(context.state, worker.home(run))
    with worker.at_work(run, job):
        place = worker.workplace(run)
        if (parcel := messages.parcel_of(message.content)) is not None:
            tensors = worker.depot(run.depot).tensors(parcel)
        reply = do_job(place, worker.within_own_limits(job, context.node_config), tensors, state)
    return Message(messages.write_reply(reply), reply_to=message)


def partition_id(context: Context) -> int:
    """Return the device's number. Raises RunError where its node was started without one."""
    if "partition-id" not in context.node_config:
        raise RunError("this node has no partition-id: start it with --node-config 'partition-id=0 ...'")
    return worker.whole_number(context.node_config, "partition-id", "a device")
