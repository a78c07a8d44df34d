"""What a process may use of its machine, and that settings are restored."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from fed_asi import tucker
from fed_asi.machine import cpus_here, one_thread, threads


def test_at_least_one_cpu() -> None:
    assert cpus_here() >= 1


def test_threads_are_given_back_however_the_block_ends() -> None:
    before = torch.get_num_threads()
    with threads(before + 2):
        assert torch.get_num_threads() == before + 2
        with threads(1):
            assert torch.get_num_threads() == 1
        assert torch.get_num_threads() == before + 2
    assert torch.get_num_threads() == before
    with pytest.raises(ValueError, match="inside"), threads(before + 1):
        raise ValueError("inside")
    assert torch.get_num_threads() == before


def test_work_of_one_thread_leaves_the_callers_number_as_it_was() -> None:
    before = torch.get_num_threads()

    @one_thread
    def count(wrong: bool = False) -> int:
        if wrong:
            raise ValueError("inside")
        return torch.get_num_threads()

    with threads(before + 2):
        assert count() == 1
        assert torch.get_num_threads() == before + 2
        with pytest.raises(ValueError, match="inside"):
            count(wrong=True)
        assert torch.get_num_threads() == before + 2
    assert torch.get_num_threads() == before


CUT_AND_PROFILED = """
import sys, torch
torch.set_num_threads(int(sys.argv[1]))
import fed_asi, hashlib
from fed_asi import models, tucker
from fed_asi.planning.calibration import profile
x = torch.randn(64, 3, 16, 16, generator=torch.Generator().manual_seed(0))
made = profile(models.build("tiny", 10, None, 16), x, torch.arange(64) % 10, micro_batches=(4, 64), density=3)
cut = torch.randn(48, 96, 8, generator=torch.Generator().manual_seed(1))
found = made.to_json().encode() + tucker.orth(cut).numpy().tobytes()
found += tucker.leading_factor(cut[0], 0.9).numpy().tobytes()
print(hashlib.sha256(found).hexdigest(), torch.get_num_threads())
"""


def test_decompositions_are_the_same_with_any_number_of_threads() -> None:
    cut = torch.randn(48, 96, 8, generator=torch.Generator().manual_seed(1))
    found = []
    for count in (1, 2, 4):
        with threads(count):
            found.append((tucker.orth(cut), tucker.leading_factor(cut[0], 0.9)))
    for orthonormal, leading in found[1:]:
        assert torch.equal(orthonormal, found[0][0])
        assert torch.equal(leading, found[0][1])


@pytest.mark.slow  # three processes that import torch; the test above is the quick part of it
@pytest.mark.computes
def test_a_profile_and_decompositions_are_the_same_with_any_number_of_threads() -> None:
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("OMP_", "MKL_"))}
    said = [
        subprocess.run(
            [sys.executable, "-c", CUT_AND_PROFILED, str(count)],
            capture_output=True, text=True, check=True, env=environment, cwd=Path(__file__).parents[1],
        ).stdout.split()
        for count in (1, 2, 4)
    ]  # fmt: skip
    assert [int(count) for _, count in said] == [1, 2, 4]
    assert len({digest for digest, _ in said}) == 1
