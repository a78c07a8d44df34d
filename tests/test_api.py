"""The public names: all there, and none that loads more than it needs."""

from __future__ import annotations

import pytest

import fed_asi


@pytest.mark.parametrize("name", dir(fed_asi))
def test_every_public_name_is_there(name: str) -> None:
    assert getattr(fed_asi, name) is not None


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'plann'"):
        _ = fed_asi.plann
