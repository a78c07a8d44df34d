"""The GPUs here, and the error if there is none; their numbers are made up, because few machines have one."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from fed_asi.errors import ConfigError, RunError
from fed_asi.gpus import CPU, Gpu, device_named, device_of, exact, gpus_here, lacking, sent, why_none


def cards(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    """Let torch see so many GPUs of 8 GiB."""
    monkeypatch.setattr("torch.cuda.is_available", lambda: count > 0)
    monkeypatch.setattr("torch.cuda.device_count", lambda: count)
    about = [SimpleNamespace(name=f"card {number}", total_memory=1 << 33) for number in range(count)]
    monkeypatch.setattr("torch.cuda.get_device_properties", lambda number: about[number])


def test_gpus_are_numbered_named_and_have_a_memory(monkeypatch):
    cards(monkeypatch, 2)
    assert gpus_here() == [Gpu(0, "card 0", 1 << 33), Gpu(1, "card 1", 1 << 33)]
    assert str(gpus_here()[1]) == "cuda:1 card 1, 8.0 GiB"
    cards(monkeypatch, 0)
    assert gpus_here() == []


def test_why_there_is_none(monkeypatch):
    monkeypatch.setattr("torch.version.cuda", None)
    monkeypatch.setattr("torch.version.hip", None, raising=False)
    assert why_none() == f"torch {torch.__version__} is built for the CPU alone"
    monkeypatch.setattr("torch.version.cuda", "13.0")
    assert why_none() == f"torch {torch.__version__} sees none: no driver, or CUDA_VISIBLE_DEVICES hides them"


def test_the_cpu_lacks_nothing_and_is_itself():
    assert lacking("cpu") is None
    assert device_named("cpu") == CPU


@pytest.mark.parametrize("name", ["cuda", "cuda:0", "cuda:7"])
def test_a_gpu_where_there_is_none_is_one_line(name, monkeypatch):
    cards(monkeypatch, 0)
    with pytest.raises(
        ConfigError, match=f'^compute.device: "{name}", but there is no GPU on this machine: .*use "cpu"$'
    ):
        device_named(name)


def test_a_number_that_is_not_there_names_those_that_are(monkeypatch):
    cards(monkeypatch, 1)
    assert lacking("cuda:1") == '"cuda:1", but the GPUs of this machine are "cuda:0"'
    cards(monkeypatch, 3)
    assert lacking("cuda:3") == '"cuda:3", but the GPUs of this machine are "cuda:0" to "cuda:2"'


def test_cuda_is_the_first_that_this_process_sees(monkeypatch):
    cards(monkeypatch, 2)
    assert [device_named(name) for name in ("cuda", "cuda:0")] == [torch.device("cuda", 0)] * 2
    assert device_named("cuda:1") == torch.device("cuda", 1)


def test_a_network_is_where_its_weights_are():
    assert device_of(nn.Linear(2, 2, device="meta")) == torch.device("meta")
    assert device_of(nn.BatchNorm2d(2, affine=False)) == CPU
    assert device_of(nn.ReLU()) == CPU


def test_what_is_sent_to_the_cpu_stays_itself():
    one = torch.ones(2)
    assert sent(one, CPU) is one
    assert sent(one, torch.device("meta")).device.type == "meta"


def test_a_gpu_computes_in_whole_float32_inside_the_block_and_as_before_after_it():
    flags = torch.backends.cudnn

    def now() -> tuple[bool, bool, bool, bool]:
        return flags.enabled, flags.allow_tf32, flags.deterministic, flags.benchmark

    before = now()
    with exact(CPU):
        assert now() == before
    with exact(torch.device("cuda", 0)):
        assert now() == (before[0], False, True, False)
    assert now() == before


def test_a_gpu_whose_memory_is_full_is_one_line():
    with (
        pytest.raises(
            RunError, match=r"^cuda:0 has no memory left \(CUDA out of memory\): let fewer"
        ) as caught,
        exact(torch.device("cuda", 0)),
    ):
        raise torch.OutOfMemoryError("CUDA out of memory\nand much more")
    assert "\n" not in str(caught.value)
