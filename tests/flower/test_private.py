"""A private part that has moved is named, with its purpose; if it is essential, that is an error."""

from __future__ import annotations

import pytest

from fed_asi.errors import RunError
from fed_asi.flower.private import Private


def test_a_part_that_moved_is_named_with_what_it_was_for() -> None:
    part = Private("flwr.nothing", "do a thing", lambda: len([1, 2]), 3)
    assert part.moved() == "flwr.nothing has 2, not 3; it is used to do a thing"

    def gone() -> object:
        raise ImportError("No module named 'flwr.nothing'")

    part = Private("flwr.nothing", "do a thing", gone, 3)
    with pytest.raises(
        RunError, match=r"^flwr\.nothing has nothing \(No module .*\), not 3; .*--backend loop$"
    ):
        part.need()


def test_a_part_that_is_where_it_was_is_needed_in_silence() -> None:
    part = Private("flwr.something", "do a thing", lambda: [1, 2], [1, 2])
    assert part.moved() == ""
    part.need()
