"""The peak of a block: what was alive at one time, and an error if the profiler reports nothing.

test_training.py compares it with a step's sizes worked out by hand; the private parts of torch that it needs are in
tests/test_torch_private.py.
"""

from __future__ import annotations

import pytest
import torch

from fed_asi.errors import TorchMovedError
from fed_asi.memory import peak
from fed_asi.memory.peak import StepMeter, peak_of

CPU = torch.device("cpu")


def test_what_is_alive_at_once_counts() -> None:
    with StepMeter(CPU) as meter:
        a = torch.zeros(1000)
        b = torch.zeros(500)
        del a
        c = torch.zeros(250)
    assert meter.peak_bytes == 6000
    assert len(b) + len(c) == 750
    with meter:
        torch.zeros(3)
    assert meter.peak_bytes == 12


def test_temporaries_inside_an_operation_count() -> None:
    x = torch.randn(64, 64)
    with StepMeter(CPU) as meter:
        y = torch.linalg.vector_norm(x + 1)  # x + 1 is gone when the block ends
    assert meter.peak_bytes >= x.nbytes + y.nbytes


def test_a_block_that_allocates_nothing_has_a_peak_of_0_bytes() -> None:
    with StepMeter(CPU) as meter:
        pass
    assert meter.peak_bytes == 0


def test_the_release_of_what_was_there_before_makes_no_room() -> None:
    with StepMeter(CPU):
        a = torch.zeros(1000)
    with StepMeter(CPU) as meter:
        del a
        b = torch.zeros(600)
    assert meter.peak_bytes == b.nbytes


def test_allocations_are_added_up_in_their_order() -> None:
    assert peak_of([]) == 0
    assert peak_of([(1, 7, 100), (2, 8, 50), (3, 7, -100), (4, 9, 60)]) == 150
    assert peak_of([(1, 5, -100), (2, 7, 10)]) == 10  # a release of what was not allocated here
    assert peak_of([(1, 7, 10), (2, 7, -10), (3, 7, 30), (4, 7, -30)]) == 30  # an address that is used again


def test_where_no_allocation_is_told_there_is_no_measurement(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peak, "allocations", lambda _profiler: iter(()))
    meter = StepMeter(CPU)
    with pytest.raises(TorchMovedError, match="none of an allocation of 4 bytes"), meter:
        torch.zeros(1000)
    assert meter.peak_bytes == 0
