"""A tail's weights as stored, against rounding by hand; the parts that a device trains are not rounded."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from fed_asi import Vanilla, compress_
from fed_asi.errors import UnsupportedLayerError
from fed_asi.methods.channels import Channels
from fed_asi.storage.frozen import store_all_, store_frozen_


def tail() -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 1), nn.Flatten(), nn.Linear(4, 2)
        )


def before_of(net: nn.Module) -> dict[str, np.ndarray]:
    return {name: value.numpy().copy() for name, value in net.state_dict().items()}


def rounded(rows: np.ndarray) -> np.ndarray:
    """Return a weight in eight bits, by hand: the largest number of each row is 127 steps."""
    flat = rows.reshape(len(rows), -1)
    scale = (
        (np.abs(flat).astype(np.float64).max(1, keepdims=True) / 127).astype(np.float32).astype(np.float64)
    )
    return (np.rint(flat / scale) * scale).astype(np.float32).reshape(rows.shape)


def test_int8_rounds_weights_row_by_row_and_nothing_else() -> None:
    net = tail()
    before = before_of(net)
    assert store_all_(net, "int8") == ["0.weight", "2.weight", "4.weight"]
    for name, value in net.state_dict().items():
        expected = before[name] if value.dim() < 2 else rounded(before[name])
        assert np.array_equal(value.numpy(), expected)
        assert value.dim() < 2 or len(np.unique(value)) > 3


def test_float16_rounds_every_parameter() -> None:
    net = tail()
    before = before_of(net)
    changed = store_all_(net, "float16")
    layers = ("0", "2", "4")  # a norm's ones and zeros are float16 already
    assert changed == [f"{layer}.{key}" for layer in layers for key in ("weight", "bias")]
    for name, value in net.named_parameters():
        assert np.array_equal(value.detach().numpy(), np.float32(np.float16(before[name])))


def test_float32_is_what_there_is() -> None:
    net = tail()
    before = before_of(net)
    assert store_all_(net, "float32") == []
    store_frozen_(net, "float32", {})
    assert all(np.array_equal(value.numpy(), before[name]) for name, value in net.state_dict().items())


@pytest.mark.parametrize("form", ["int8", "float16"])
def test_a_device_stores_what_its_plan_does_not_train_and_others_moved(form: str) -> None:
    net = tail()
    store_all_(net, form)  # type: ignore[arg-type]
    handed_out = {name: p.detach().clone() for name, p in net.named_parameters()}
    energies = {"2": torch.tensor([1.0, 4.0, 3.0, 2.0])}
    compress_(net, {"2": Channels(2), "4": Vanilla()}, energies=energies)
    with torch.no_grad():  # as others moved it: rows 1 and 3 alone
        for weight in (net[0].weight, net[2].weight, net[4].weight[1:]):
            weight[1::2] += 0.01234
    sent = before_of(net)
    store_frozen_(net, form, handed_out)  # type: ignore[arg-type]
    after = before_of(net)

    def stored(rows: np.ndarray) -> np.ndarray:
        return rounded(rows) if form == "int8" else np.float32(np.float16(rows))

    whole, part, trained = (f"{layer}.weight" for layer in (0, 2, 4))
    rest = [0, 3]  # the channels of least energy
    assert np.array_equal(after[trained], sent[trained])
    assert np.array_equal(after[part][:, 1:3], sent[part][:, 1:3])
    assert np.array_equal(after[whole][0::2], handed_out[whole].numpy()[0::2])
    assert np.array_equal(after[part][0::2], handed_out[part].numpy()[0::2])
    assert np.array_equal(after[whole][1::2], stored(sent[whole][1::2]))
    assert np.array_equal(after[part][1::2][:, rest], stored(sent[part][1::2][:, rest]))
    assert not np.array_equal(after[whole], sent[whole])
    assert not np.array_equal(after[part], sent[part])
    store_frozen_(net, form, handed_out)  # type: ignore[arg-type]
    assert form == "int8" or all(np.array_equal(after[name], value) for name, value in before_of(net).items())


@pytest.mark.parametrize(("form", "value"), [("int8", torch.nan), ("float16", 1e6)])
def test_what_cannot_be_stored_is_named(form: str, value: float) -> None:
    net = tail()
    with torch.no_grad():
        net[4].weight[0, 0] = value
    with pytest.raises(UnsupportedLayerError, match=r"^4\.weight cannot be stored as"):
        store_all_(net, form)  # type: ignore[arg-type]
