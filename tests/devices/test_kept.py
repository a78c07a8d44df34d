from __future__ import annotations

import torch

from fed_asi.devices.kept import Kept

FACTORS = {"conv": [torch.ones(4, 2), torch.zeros(0)], "variate:a.conv": [torch.ones(2)]}


def test_a_state_is_split_into_what_it_was_made_of() -> None:
    kept = Kept(FACTORS, {"variate": {"a.weight": torch.ones(3)}, "residual": {"b:c": torch.zeros(2)}})
    again = Kept.of(kept.state)
    assert again.factors.keys() == FACTORS.keys()
    assert torch.equal(again.by_kind["variate"]["a.weight"], torch.ones(3))
    assert set(again.by_kind["residual"]) == {"b:c"}
    assert kept.nbytes == 4 * (8 + 0 + 2 + 3 + 2)


def test_warm_factors_alone_are_the_state_they_were() -> None:
    assert Kept(FACTORS).state == FACTORS  # as devices wrote it before there were strategies
    assert Kept.of(FACTORS).by_kind == {}
    assert Kept.of({}).state == {}
