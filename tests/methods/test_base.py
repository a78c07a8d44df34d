"""Methods as people write them and as files store them."""

from __future__ import annotations

import pickle

import pytest

from fed_asi.errors import ConfigError
from fed_asi.methods import (
    ASI,
    HOSVD,
    KINDS,
    BiasOnly,
    Channels,
    FixedSubspace,
    Frozen,
    GradientFilter,
    Method,
    Quantized,
    SpatialMean,
    Vanilla,
)

ALL = [
    Frozen(),
    BiasOnly(),
    Vanilla(),
    Vanilla(centered=True),
    Quantized(bits=4),
    SpatialMean(),
    ASI((8, 8, 3, 3)),
    ASI((1, 2), order="published", bits=8, centered=True, warm=False),
    HOSVD(0.5),
    FixedSubspace(),
    GradientFilter(patch=7),
    Channels(3, bits=8, centered=True, pick="round"),
]


@pytest.mark.parametrize("method", ALL, ids=str)
def test_json_and_pickle_give_it_back(method: Method) -> None:
    assert Method.from_dict(method.to_dict()) == method
    assert Method.parse(method.to_dict()) == method
    assert pickle.loads(pickle.dumps(method)) == method
    assert Method.parse(str(method)) == method


def test_every_kind_is_tried_here() -> None:
    assert {type(method) for method in ALL} == set(KINDS.values())


@pytest.mark.parametrize(
    ("written", "method"),
    [
        ("vanilla", Vanilla()),
        ("asi(ranks=(8, 8, 3, 3))", ASI((8, 8, 3, 3))),
        ("quantized(bits=4)", Quantized(4)),
        ("gradient-filter", GradientFilter()),
        ("GradientFilter", GradientFilter()),
        ("spatial_mean", SpatialMean()),
        ("lance", FixedSubspace()),
    ],
)
def test_names_people_use(written: str, method: Method) -> None:
    assert Method.parse(written) == method


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("vanila", "did you mean vanilla"),
        ("asi", "needs ranks"),
        ("asi(ranks=(0, 1))", "integer above 0"),
        ("asi(ranks=(1.5, 1))", "integer above 0"),
        ("asi(ranks=(8, 8), order='random')", "unknown order"),
        ("asi(ranks=(8, 8), bits=3)", "bits must be 32 or 8"),
        ("quantized(bits=5)", "bits must be 8 or 4"),
        ("quantized(bit=8)", "did you mean bits"),
        ("hosvd(epsilon=0)", "epsilon must be above 0"),
        ("hosvd(epsilon=1.5)", "epsilon must be above 0"),
        ("filter(patch=0)", "patch must be an integer above 0"),
        ("quantized(8)", "not understood"),
        ("quantized(bits=open('x'))", "not understood"),
        ({"kind": "vanilla", "version": 9}, "version 9"),
        ({"version": 1}, "needs a kind"),
        (3, "neither a name nor a table"),
    ],
    ids=str,
)
def test_what_is_wrong_is_said(written: object, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        Method.parse(written)  # type: ignore[arg-type]
