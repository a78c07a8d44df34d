"""Codecs: decoded updates are within their bounds, of the right form and finite, whatever a device sends."""

from __future__ import annotations

import contextlib
import io
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from fed_asi import codecs
from fed_asi.codecs import Codec, register
from fed_asi.codecs.base import wire_name
from fed_asi.codecs.float16 import Float16
from fed_asi.codecs.int8 import Int8
from fed_asi.codecs.plain import Plain
from fed_asi.codecs.top_k import TopK
from fed_asi.errors import ConfigError, UpdateError

SHAPES = st.sampled_from([(), (1,), (7,), (3, 5), (4, 3, 2, 2), (2, 1), (1, 9), (0, 3)])
CODECS = [Float16(), Int8(), TopK(), TopK(share=0.5), TopK(share=1.0), TopK(share=1e-9)]


@st.composite
def moved(draw: st.DrawFn) -> Tensor:
    """What a tensor moved by: of any scale from float32's smallest to its largest numbers, with ties and zeros."""
    shape = draw(SHAPES)
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    values = torch.randn(shape, generator=generator, dtype=torch.float64)
    kind = draw(st.sampled_from(["normal", "ties", "rows"]))
    if kind == "ties":
        values = values.sign() * (values.abs() > 0.5)
    if kind == "rows" and len(shape) > 1:
        values = values * torch.logspace(-20, 10, shape[0], dtype=torch.float64).view(
            -1, *[1] * (len(shape) - 1)
        )
    scale = draw(st.sampled_from([1e-45, 1e-39, 1e-20, 1e-3, 1.0, 1e4, 1e37]))
    most = torch.finfo(torch.float32).max
    return (values * scale).clamp(-most, most).to(torch.float32)


@pytest.mark.few(3)
@pytest.mark.parametrize("codec", CODECS, ids=str)
@settings(max_examples=60, deadline=None)
@given(x=moved())
def test_what_comes_back_has_the_form_and_the_bytes_it_says(codec: Codec, x: Tensor) -> None:
    shape = tuple(x.shape)
    pieces, forms = codec.encode(x), codec.pieces(shape)
    assert {name: (t.dtype, tuple(t.shape), t.nbytes) for name, t in pieces.items()} == {
        name: (form.dtype, form.shape, form.nbytes) for name, form in forms.items()
    }
    back = codec.decode("w", pieces, shape)
    assert (back.dtype, back.shape) == (torch.float32, x.shape)
    assert bool(torch.isfinite(back).all())
    assert all(torch.equal(a, b) for a, b in zip(pieces.values(), codec.encode(x).values(), strict=True))


@settings(max_examples=100, deadline=None)
@given(moved())
def test_float16_rounds_to_the_nearest(x: Tensor) -> None:
    back = Float16().decode("w", Float16().encode(x), tuple(x.shape)).double()
    within = x.abs() <= 65504.0
    bound = torch.maximum(x.double().abs() * 2.0**-11, torch.tensor(2.0**-25, dtype=torch.float64))
    assert bool(((back - x.double()).abs() <= bound)[within].all())
    assert bool((back.abs() == 65504.0)[~within].all())


@settings(max_examples=100, deadline=None)
@given(moved())
def test_int8_is_off_by_half_a_scale_of_its_row(x: Tensor) -> None:
    pieces = Int8().encode(x)
    back = Int8().decode("w", pieces, tuple(x.shape)).double()
    rows = x.double().reshape(len(pieces["scale"]), -1) if x.numel() else x.double()
    apart = (back.reshape(rows.shape) - rows).abs()
    largest = rows.abs().amax(1, keepdim=True) if rows.numel() else rows
    bound = (
        largest / 127 / 2 * (1 + 1e-5) + 2e-43
    )  # below float32's normal numbers a scale is a multiple of 1.4e-45
    assert bool((apart <= bound).all())


@settings(max_examples=100, deadline=None)
@given(moved(), st.sampled_from([0.01, 0.3, 0.5, 1.0]))
def test_top_k_gives_the_largest_as_they_are(x: Tensor, share: float) -> None:
    codec = TopK(share=share)
    back = codec.decode("w", codec.encode(x), tuple(x.shape)).reshape(-1)
    flat = x.reshape(-1)
    count = codec.pieces(tuple(x.shape))[""].shape[0]
    expected = torch.from_numpy(np.sort(np.abs(flat.numpy()))[::-1][:count].copy())
    assert torch.equal(back.abs().sort(descending=True).values[:count], expected)
    assert bool(((back == flat) | (back == 0.0)).all())


@pytest.mark.parametrize(
    ("share", "size", "count"),
    [(0.1, 30, 3), (0.1, 31, 4), (0.25, 4, 1), (0.01, 5, 1), (1.0, 7, 7), (0.3, 0, 0)],
)
def test_top_k_counts(share: float, size: int, count: int) -> None:
    assert TopK(share=share).pieces((size,))["index"].shape == (count,)


@pytest.mark.parametrize(
    ("codec", "pieces", "cause"),
    [
        (Float16(), {}, "missing tensor w"),
        (Float16(), {"": torch.zeros(2, 2)}, "w is torch.float32 of shape"),
        (Float16(), {"": torch.zeros(3, 2).half()}, r"w is torch.float16 of shape \(3, 2\), not torch.float16 of"),
        (Float16(), {"": torch.full((2, 2), float("inf")).half()}, "w holds Inf"),
        (Float16(), {"": torch.full((2, 2), float("nan")).half()}, "w holds NaN"),
        (Float16(), {"": torch.zeros(2, 2).half().to_sparse()}, "w is not a plain tensor"),
        (Float16(), {"": torch.zeros(2, 2, device="meta").half()}, "w is not a plain tensor"),
        (Int8(), {"": torch.zeros(2, 2).to(torch.int8)}, "missing tensor scale..w"),
        (Int8(), {"": torch.ones(2, 2).to(torch.int8), "scale": torch.tensor([1.0, -1.0])}, "w: a scale is below 0"),
        (Int8(), {"": torch.ones(2, 2).to(torch.int8), "scale": torch.tensor([1.0, float("nan")])}, "w holds NaN"),
        (Int8(), {"": torch.full((2, 2), -128).to(torch.int8), "scale": torch.tensor([3e38, 1.0])}, "w holds Inf"),
        (TopK(share=0.5), {"": torch.zeros(2), "index": torch.tensor([1, 1])}, "index..w is torch.int64"),
        (TopK(share=0.5), {"": torch.zeros(2), "index": torch.tensor([1, 1]).int()}, "w: its positions are not"),
        (TopK(share=0.5), {"": torch.zeros(2), "index": torch.tensor([3, 4]).int()}, "w: its positions are not"),
        (TopK(share=0.5), {"": torch.zeros(2), "index": torch.tensor([-1, 2]).int()}, "w: its positions are not"),
        (TopK(share=0.5), {"": torch.zeros(1), "index": torch.tensor([1]).int()}, r"w is torch.float32 of shape"),
        (TopK(share=0.5), {"": torch.tensor([0, float("inf")]), "index": torch.tensor([0, 1]).int()}, "w holds Inf"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_named(codec: Codec, pieces: dict[str, Tensor], cause: str) -> None:
    with pytest.raises(UpdateError, match=cause):
        codec.decode("w", pieces, (2, 2))


BITS = {
    "float16": np.float16,
    "int8": np.int8,
    "float32": np.float32,
    "int32": np.int32,
    "float64": np.float64,
}


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(CODECS), st.data())
def test_whatever_bits_arrive_a_finite_tensor_or_a_reason_comes_of_them(codec: Codec, data: Any) -> None:
    shape, pieces = data.draw(SHAPES), {}
    for name, form in codec.pieces(shape).items():
        kind = str(form.dtype).removeprefix("torch.")
        if data.draw(st.integers(0, 9)) == 0:
            kind = data.draw(st.sampled_from(sorted(BITS)))
        noise = data.draw(st.binary(min_size=form.nbytes, max_size=form.nbytes))
        values = np.frombuffer(io.BytesIO(noise).read(), dtype=np.uint8)
        size = np.dtype(BITS[kind]).itemsize
        array = np.frombuffer(values[: len(values) // size * size].tobytes(), dtype=BITS[kind])
        with contextlib.suppress(ValueError):
            array = array.reshape(form.shape)
        pieces[name] = torch.from_numpy(array.copy())
    with contextlib.suppress(UpdateError):
        found = codec.decode("w", pieces, shape)
        assert found.shape == shape
        assert bool(torch.isfinite(found).all())


def test_they_are_found_by_themselves(own_names: None) -> None:
    assert codecs.names() == ["float16", "int8", "plain", "top-k"]
    with pytest.raises(ConfigError, match="unknown codec 'topk'; did you mean top-k"):
        codecs.find("topk")

    @register
    @dataclass(frozen=True, slots=True)
    class Other(Float16):
        name: ClassVar[str] = "other"

    assert codecs.find("other") is Other
    for unfit in (type("NoName", (Float16,), {"name": ""}), type("Silent", (Codec,), {"name": "silent"})):
        with pytest.raises(ConfigError, match=f"{unfit.__name__}: it must be a Codec with a name, pieces"):
            register(unfit)


def test_what_a_device_holds_for_them() -> None:
    assert Plain().holds == frozenset()
    assert Int8().holds == Float16().holds == TopK(error_feedback=False).holds == {"start"}
    assert Int8(error_feedback=True).holds == TopK().holds == {"start", "residual"}
    with pytest.raises(ConfigError, match="loses nothing"):
        Plain(error_feedback=True)
    assert wire_name("", "w") == "w"
    assert wire_name("scale", "w") == "scale..w"
