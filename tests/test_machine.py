"""What a process may use of its machine, and that it is given back."""

from __future__ import annotations

import pytest
import torch

from fed_asi.machine import cpus_here, threads


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
