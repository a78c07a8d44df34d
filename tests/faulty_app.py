"""A ClientApp whose devices fail as a file says, to test how a fleet copes (test_faults.py).

FED_ASI_REHEARSAL names a JSON file: {"ROUND:PARTITION_ID": "raise" | "exit" | "sys-exit" | "kill" | "hang" |
"slow" | "nan" | "inf" | "shape" | "missing" | "surplus" | "garbage"}.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from dataclasses import replace
from pathlib import Path

import torch
from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp

import fed_asi.flower.client as real
from fed_asi.devices import reply as replies
from fed_asi.devices.job import Job
from fed_asi.devices.reply import Reply, answer
from fed_asi.devices.warm_factors import WarmFactors
from fed_asi.workplace.place import Workplace

app = ClientApp()
app.query()(real.who)


def planned(job: Job) -> str:
    faults = json.loads(Path(os.environ["FED_ASI_REHEARSAL"]).read_text())
    return str(faults.get(f"{job.round}:{job.partition_id}", ""))


def before(fault: str) -> None:
    if fault == "raise":
        raise ValueError("a device's own mistake")
    if fault == "exit":
        os._exit(3)
    if fault == "sys-exit":
        sys.exit(3)
    if fault == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if fault == "hang":
        time.sleep(3600)


def spoiled(reply: Reply, fault: str) -> Reply:
    tensors = dict(reply.tensors)
    name = sorted(tensors)[0]
    if fault in {"nan", "inf"}:
        tensors[name] = torch.full_like(tensors[name], float(fault))
    elif fault == "shape":
        tensors[name] = torch.zeros(2, 2, 2)
    elif fault == "missing":
        del tensors[name]
    elif fault == "surplus":
        tensors["nobody.weight"] = torch.zeros(1)
    return replace(reply, tensors=tensors)


def faulty_answer(
    place: Workplace, job: Job, tensors: dict[str, torch.Tensor], factors: WarmFactors | None
) -> tuple[Reply, WarmFactors]:
    fault = planned(job)

    class Place:
        """The place, but looking at it has the fault."""

        def __getattr__(self, name: str) -> object:
            before(fault)
            return getattr(place, name)

    reply, kept = answer(Place(), job, tensors, factors)  # type: ignore[arg-type]
    return (spoiled(reply, fault) if reply.tensors else reply), kept


@app.train()
def train(message: Message, context: Context) -> Message:
    replies.answer = faulty_answer
    job, _, _ = real.messages.read_job(message.content)
    if planned(job) == "garbage":
        return Message(RecordDict({"what": ConfigRecord({"is": "this"})}), reply_to=message)
    return real.train(message, context)
