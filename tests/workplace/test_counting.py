"""The sizes of a run's trunk and tail: together they are the network, with the trunk's norms folded."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from fed_asi.memory.costs import cost
from fed_asi.workplace.counting import networks_of
from fed_asi.workplace.prepare import prepare
from runs import small


def test_trunk_and_tail_make_the_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FED_ASI_FEATURES_DIR", str(tmp_path / "features"))
    config = small()
    place = prepare(config, tmp_path / "workplace")
    trunk, tail = networks_of(place.folder, config)
    assert not any(layer.normed for layer in trunk.layers)
    plain = cost(place.tail, place.inputs(torch.zeros(3, dtype=torch.long)))
    assert tail.forward(3).macs == sum(layer.forward_macs for layer in plain.layers)
    assert {layer.name for layer in place.plans.profile.layers} <= {layer.name for layer in tail.layers}
    assert not {layer.name for layer in trunk.layers} & {layer.name for layer in tail.layers}
