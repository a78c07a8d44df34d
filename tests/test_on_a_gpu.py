"""What only a GPU can show: its own gradients, its own peak, and that torch finds nothing waiting for it.

What a second device without a GPU can show is in training/, devices/ and workplace/ (test_on_a_device.py).
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from fed_asi.devices.reply import answer
from fed_asi.gpus import device_named, exact, sent
from fed_asi.memory.arena.planned import arena
from fed_asi.memory.meter import ActivationMeter
from fed_asi.memory.peak import StepMeter
from fed_asi.results.store import RunStore
from fed_asi.rounds.run import run_loop
from fed_asi.training.sgd import Sgd
from fed_asi.training.steps import Stepper
from fed_asi.workplace.prepare import prepare
from runs import job, small
from tails import FORMS, Tail, tail_of

pytestmark = pytest.mark.gpu
METHODS = {name: method for name, method in FORMS.items() if method is not None}


@contextmanager
def unattended() -> Iterator[None]:
    """Let torch raise at whatever makes the host wait for the GPU."""
    before = torch.cuda.get_sync_debug_mode()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # that it is a prototype, said once a process
            torch.cuda.set_sync_debug_mode("error")
        yield
    finally:
        torch.cuda.set_sync_debug_mode(before)


def gradients(tail: Tail, device: torch.device) -> tuple[torch.Tensor, int]:
    """Return all gradients of a step as one vector, on the CPU, and the bytes that it kept."""
    model = copy.deepcopy(tail.model).to(device)
    with exact(device), ActivationMeter(model) as meter:
        loss = F.cross_entropy(model(tail.x.to(device)), tail.y.to(device))
    with exact(device):
        loss.backward()
    return torch.cat(
        [p.grad.flatten().cpu() for p in model.parameters() if p.grad is not None]
    ), meter.saved_bytes


@pytest.mark.parametrize("name", METHODS)
def test_gradients_and_bytes_are_the_cpus(name: str) -> None:
    tail = tail_of("tiny", METHODS[name], batch=8)
    wanted, counted = gradients(tail, torch.device("cpu"))
    found, kept = gradients(tail, device_named("cuda"))
    assert kept == counted
    assert (found - wanted).norm() < 1e-4 * wanted.norm()


@pytest.mark.parametrize("name", [name for name in METHODS if name != "HOSVD"])
def test_torch_finds_nobody_waiting_in_a_step(name: str) -> None:
    device, tail = device_named("cuda"), tail_of("tiny", METHODS[name], batch=8, micro_batch=2)
    model, batch = tail.model.to(device), (tail.x.to(device), tail.y.to(device))
    one = Stepper(
        model,
        Sgd(model.named_parameters(), momentum=0.9, weight_decay=1e-3, clip_norm=1.0),
        micro_batch=2,
        budget_bytes=1 << 30,
    )
    one.step_(*batch, 0.1)
    with unattended():
        one.step_(*batch, 0.1)


def test_what_is_sent_makes_nobody_wait_and_arrives() -> None:
    numbers = torch.arange(1 << 20)
    with unattended():
        there = sent(numbers, device_named("cuda"))
    assert torch.equal(there.cpu(), numbers)


def test_the_allocators_peak_is_what_is_counted_and_little_more() -> None:
    device, tail = device_named("cuda"), tail_of("tiny", METHODS["8 bits"], batch=64)
    model, x, y = tail.model.to(device), tail.x.to(device), tail.y.to(device)

    def step() -> None:
        model.zero_grad()
        F.cross_entropy(model(x.clone()), y).backward()

    step()
    with exact(device), StepMeter(device) as meter:
        step()
    counted = arena(model, x, y).lower_bound_bytes
    assert (
        0.5 * counted < meter.peak_bytes < 2.0 * counted + (64 << 20)
    )  # cuDNN's and cuBLAS's room is beside it


def test_a_device_trains_there_and_hands_in_what_is_nearly_the_cpus(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FED_ASI_FEATURES_DIR", str(tmp_path / "features"))
    here = prepare(small(), tmp_path / "workplace")
    wanted, _ = answer(here, job(), here.reference, None)
    there = replace(here, tail=copy.deepcopy(here.tail)).on(device_named("cuda"))
    found, _ = answer(there, job(), there.reference, None)
    assert found.outcome == "trained"
    assert found.stats["measured_bytes"] == wanted.stats["measured_bytes"]
    for name, tensor in found.tensors.items():
        assert tensor.device.type == "cpu"
        torch.testing.assert_close(tensor, wanted.tensors[name], rtol=1e-3, atol=1e-4)


def test_a_whole_run_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FED_ASI_FEATURES_DIR", str(tmp_path / "features"))
    run_loop(small(compute={"device": "cuda"}, pretrain={"epochs": 1}), tmp_path / "run")
    with RunStore.read(tmp_path / "run") as store:
        assert store.run().status == "finished"
        assert {row.outcome for row in store.device_rounds()} == {"trained"}


def test_a_device_with_ram_and_flash_there_has_the_cpus_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FED_ASI_FEATURES_DIR", str(tmp_path / "features"))
    group = {"name": "all", "count": 6, "budget": "unlimited", "batch_size": 16, "micro_batch": 1}
    group |= {"ram": "256 KiB", "flash": "1 MiB"}
    method = {"name": "planner", "methods": ["channels", "bias"], "layers": 3, "calibration_images": 16}
    found = {}
    for device in ("cpu", "cuda"):
        config = small(
            groups=[group], method=method, storage={"frozen": "int8"}, pretrain={"epochs": 1},
            train={"update": "layer", "clip_norm": "off"}, compute={"device": device, "gradients_at": 8},
        )  # fmt: skip
        run_loop(config, tmp_path / device)
        with RunStore.read(tmp_path / device) as store:
            rows = list(store.device_rounds())
        assert {row.outcome for row in rows} == {"trained"}
        found[device] = [(row.ram_bytes, row.flash_bytes, row.measured_bytes) for row in rows]
    assert found["cuda"] == found["cpu"]
