"""Bytes that travel beside the pickle, and arrive as plain bytes however they are pickled or copied."""

from __future__ import annotations

import copy
import pickle

import pytest

from fed_asi.flower.carried import Carried


def test_they_travel_beside_the_pickle() -> None:
    beside: list[pickle.PickleBuffer] = []
    made = pickle.dumps({"data": Carried(b"x" * 1000)}, protocol=5, buffer_callback=beside.append)
    assert len(made) < 200
    assert [bytes(one.raw()) for one in beside] == [b"x" * 1000]
    found = pickle.loads(made, buffers=[bytearray(b"y" * 1000)])["data"]
    assert (type(found), found) == (bytes, b"y" * 1000)


@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_within_a_pickle_and_in_a_copy_they_are_bytes(protocol: int) -> None:
    data = Carried(b"x" * 1000)
    for found in (pickle.loads(pickle.dumps(data, protocol=protocol)), copy.deepcopy(data)):
        assert (type(found), found) == (bytes, data)
