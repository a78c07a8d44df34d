"""Frozen weights of a tail as they are stored, against rounding by hand; what some device trains stays."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from fed_asi.errors import UnsupportedLayerError
from fed_asi.storage.frozen import store_frozen_


def tail() -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 1), nn.Flatten(), nn.Linear(4, 2)
        )


def before_of(net: nn.Module) -> dict[str, np.ndarray]:
    return {name: value.numpy().copy() for name, value in net.state_dict().items()}


def test_int8_rounds_frozen_weights_row_by_row_and_nothing_else() -> None:
    net = tail()
    before = before_of(net)
    assert store_frozen_(net, ["2", "4.bias"], "int8") == ["0.weight", "4.weight"]
    for name, value in net.state_dict().items():
        if name not in {"0.weight", "4.weight"}:
            assert np.array_equal(value.numpy(), before[name])
            continue
        rows = before[name].reshape(len(value), -1)
        scale = np.abs(rows).max(1, keepdims=True) / 127
        assert np.abs(value.numpy().reshape(rows.shape) - rows).max() <= scale.max() * 0.501
        steps = value.numpy().reshape(rows.shape) / scale
        assert np.abs(steps - np.rint(steps)).max() < 1e-4
        assert len(np.unique(np.rint(steps))) > 3


def test_float16_rounds_every_frozen_parameter() -> None:
    net = tail()
    before = before_of(net)
    changed = store_frozen_(net, ["2"], "float16")
    assert {"0.weight", "0.bias", "4.weight", "4.bias"} == set(
        changed
    )  # a norm's ones and zeros are float16 already
    for name, value in net.named_parameters():
        expected = before[name] if name.startswith("2.") else np.float32(np.float16(before[name]))
        assert np.array_equal(value.detach().numpy(), expected)


def test_float32_is_what_there_is() -> None:
    net = tail()
    before = before_of(net)
    assert store_frozen_(net, [], "float32") == []
    assert all(np.array_equal(value.numpy(), before[name]) for name, value in net.state_dict().items())


@pytest.mark.parametrize(("form", "value"), [("int8", torch.nan), ("float16", 1e6)])
def test_what_cannot_be_stored_is_named(form: str, value: float) -> None:
    net = tail()
    with torch.no_grad():
        net[4].weight[0, 0] = value
    with pytest.raises(UnsupportedLayerError, match=r"^4\.weight cannot be stored as"):
        store_frozen_(net, ["0", "2"], form)  # type: ignore[arg-type]
