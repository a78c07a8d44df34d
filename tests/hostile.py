"""Hypothesis strategies for everything a device may send, from noise to a good reply with one mistake in it."""

from __future__ import annotations

import io
import json
import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # Flower's own imports warn
    from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict


def many(text: str, times: int) -> st.SearchStrategy[str]:
    """A text many times over. hypothesis repeats a strategy's arguments where it reports, and warns of long ones."""
    return st.just(text).map(lambda one: one * times)


NUMBERS = st.one_of(
    st.integers(),
    st.sampled_from([-1, 0, 2**31, 2**63 - 1, 2**63, -(2**63), 10**30, 10**400]),
    st.floats(),
    st.sampled_from([1e308, -1e308, 5e-324]),
)
LEAVES = st.one_of(st.none(), st.booleans(), NUMBERS, st.text(), st.just("\x1b[31m\0"), many("x", 10**5))
JSON = st.recursive(
    LEAVES,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(), inner, max_size=3)),
    max_leaves=6,
)
NO_JSON = st.one_of(
    st.text(st.characters(codec=None, exclude_categories=[])),  # half surrogate pairs, too
    st.sampled_from(["", "NaN", "null", "{", '{"version": 1e999}']),
    many("[", 10**5),
    many('{"a":', 10**4),
    many("1", 10**5),
)


@st.composite
def texts(draw: st.DrawFn, good: Mapping[str, Any]) -> str:
    """A reply's JSON: noise, or the good one with a few values changed, missing or added, at any depth."""
    if draw(st.integers(0, 3)) == 0:
        return draw(NO_JSON)
    content = json.loads(json.dumps(good))
    for _ in range(draw(st.integers(1, 2))):
        place: Any = content
        while isinstance(place, dict) and draw(st.booleans()):
            inner = [value for value in place.values() if isinstance(value, dict)]
            if not inner:
                break
            place = draw(st.sampled_from(inner))
        key = draw(st.one_of(st.sampled_from(sorted(place) or [""]), st.text()))
        if draw(st.booleans()):
            place[key] = draw(JSON)
        else:
            place.pop(key, None)
    return json.dumps(content)


def saved(array: np.ndarray[Any, Any], **header: Any) -> bytes:
    """Return an array as numpy writes it, but for what the header is to say."""
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(  # type: ignore[no-untyped-call]
        buffer, np.lib.format.header_data_from_array_1_0(array) | header
    )
    return buffer.getvalue() + array.tobytes()


@st.composite
def tensors(draw: st.DrawFn, good: ArrayRecord) -> ArrayRecord:
    """A reply's arrays: the good ones with a few changed, missing or added."""
    record = dict(good.items())
    for _ in range(draw(st.integers(0, 2))):
        name = draw(st.one_of(st.sampled_from(sorted(record) or [""]), st.text()))
        record.pop(name, None)
        if draw(st.integers(0, 3)):
            record[name] = draw(some_array(good.get(name)))
    return ArrayRecord(record)


@st.composite
def some_array(draw: st.DrawFn, like: Array | None) -> Array:
    """One array: of any type and shape, with a header that lies, or no array at all."""
    which = draw(st.integers(0, 4))
    if which == 0:
        kinds = st.one_of(arrays.scalar_dtypes(), arrays.unicode_string_dtypes(), arrays.byte_string_dtypes())
        return Array(draw(arrays.arrays(kinds, arrays.array_shapes(min_dims=0, min_side=0, max_side=3))))
    if which == 1 and like is not None:
        values = np.array(like.numpy())
        value = draw(st.sampled_from([np.nan, np.inf, -np.inf, 3e38, -0.0]))
        values.flat[draw(st.integers(0, values.size - 1))] = value
        return Array(values)
    values = np.zeros(draw(arrays.array_shapes(min_dims=0, min_side=0, max_side=3)), dtype="float32")
    if which == 2:
        shape = draw(st.sampled_from([(10**12,), (2**62, 2**62), (0, 10**18), (3,) * 40, (-1,), (1,), ()]))
        descr = draw(st.sampled_from(["<f4", ">f4", "|O", "<U0", "|V0", "<M8[s]", "<f16", "|S3"]))
        return Array("float32", (1,), "numpy.ndarray", saved(values, shape=shape, descr=descr))
    data = draw(
        st.one_of(st.binary(max_size=200), st.just(saved(values)[:-1]), st.just(saved(values) + b"!"))
    )
    return Array("float32", (1,), draw(st.sampled_from(["numpy.ndarray", "pickle"])), data)


VALUES = st.one_of(
    st.booleans(), st.integers(), st.floats(), st.text(), st.binary(), st.lists(st.floats(), max_size=2)
)


@st.composite
def contents(draw: st.DrawFn, good: RecordDict) -> RecordDict:
    """A whole reply: noise in Flower's records, or the good one with something wrong in one or two of them."""
    if draw(st.integers(0, 19)) == 19:
        names = st.sampled_from(["reply", "tensors", "times", "who", "x"])
        configs = st.dictionaries(st.text(), VALUES, max_size=2).map(ConfigRecord)
        metrics = st.dictionaries(st.text(), NUMBERS, max_size=2).map(MetricRecord)
        return RecordDict(draw(st.dictionaries(names, st.one_of(configs, metrics), max_size=3)))
    content = dict(good.items())
    said = json.loads(str(good.config_records["reply"]["reply"]))
    for record in draw(st.lists(st.sampled_from(["reply", "tensors", "times"]), min_size=1, max_size=2)):
        if record == "reply":
            text = draw(st.one_of(texts(said), texts(said), texts(said), VALUES))
            content["reply"] = ConfigRecord({"reply": text})
        elif record == "tensors":
            content["tensors"] = draw(tensors(good.array_records["tensors"]))
        else:
            content["times"] = MetricRecord({"host_seconds": draw(st.one_of(NUMBERS, st.just([1.0])))})
    return RecordDict(content)
