"""Names from other libraries: pinned to a version without an import, and found in that version only."""

from __future__ import annotations

import pytest

from fed_asi import libraries, own_code
from fed_asi.errors import ConfigError
from stand_ins import installed


@pytest.fixture
def shop(monkeypatch, tmp_path):
    """A library "shop:" of a package "shop-things" 2.1, of which any name is a thing that it is."""
    monkeypatch.setattr(libraries, "_LIBRARIES", {})
    installed(monkeypatch, tmp_path / "site", "shop-things", "2.1")

    @libraries.register("shop", "thing", package="shop-things")
    def find(name):
        if name == "broken":
            raise ImportError("no module named cellar\nand more")
        return f"the {name}"

    return find


def test_a_name_is_pinned_to_the_version_and_found(shop):
    pinned = libraries.pin("shop:old/chair.v2")
    assert pinned == "shop@2.1:old/chair.v2"
    assert libraries.pin(pinned) == pinned
    assert (
        libraries.find("thing", pinned) == libraries.find("thing", "shop:old/chair.v2") == "the old/chair.v2"
    )
    assert own_code.shown_name(pinned) == libraries.shown_name(pinned) == "shop:old/chair.v2"


def test_a_name_of_a_library_is_none_of_code(shop):
    assert libraries.is_library("shop:chair")
    assert libraries.is_library("shop@2.1:chair")
    assert not own_code.is_own("shop:chair")
    for name in ("chair", "shop", "shop.old:chair", "cellar:chair", "./shop.py:chair"):
        assert not libraries.is_library(name)
    assert own_code.is_own("shop.old:chair")  # a module's object, as of any package


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (lambda: libraries.pin("shop@2.0:chair"), "shop:chair was asked of shop-things 2.0, here is 2.1"),
        (lambda: libraries.find("thing", "shop@2.0:chair"), "install that version, or start again"),
        (lambda: libraries.find("dish", "shop:chair"), "shop:chair: shop names a thing, not a dish"),
        (
            lambda: libraries.find("thing", "shop:broken"),
            "shop-things cannot be imported: no module named cellar",
        ),
        (
            lambda: libraries.pin("cellar:chair"),
            "cellar:chair does not name a library: such a name begins with shop:",
        ),
    ],
)
def test_what_cannot_be_found_is_one_line(shop, asked, said):
    with pytest.raises(ConfigError) as caught:
        asked()
    (problem,) = caught.value.problems
    assert said in problem
    assert "\n" not in problem


def test_a_package_that_is_missing_says_how_to_get_it(shop):
    libraries.register("attic", "thing", package="no-such-package-anywhere")(lambda name: name)
    for asked in (lambda: libraries.pin("attic:chair"), lambda: libraries.find("thing", "attic:chair")):
        with pytest.raises(ConfigError) as caught:
            asked()
        assert 'needs no-such-package-anywhere, which is missing: pip install "fed-asi[attic]"' in str(
            caught.value
        )
