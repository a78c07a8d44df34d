"""The captions of figures, with the run's own numbers."""

from __future__ import annotations

from dataclasses import replace

import pytest

from fed_asi.results import captions
from fed_asi.results.store import RunStore
from fed_asi.results.summary import Summary, summarise
from made_clock import with_clock
from made_run import make


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Summary:
    with RunStore.read(with_clock(make(tmp_path_factory.mktemp("runs") / "made"))) as store:
        return summarise(store)


def test_rounds_say_from_where_to_where(made):
    text = captions.of_rounds([made])
    assert text.startswith("The shared model goes from 12.0 % to 72.5 % on the server's test images")
    assert "ends at 36.3 %" in text
    assert captions.of_rounds([made, made]).startswith("One line per run")
    assert captions.of_rounds([replace(made, rounds=())]) == "Nothing was evaluated yet."


def test_budgets_say_how_near_the_nearest_is_and_who_passed(made):
    assert "the nearest took 62.9 KiB of 64.0 KiB, 98 %" in captions.of_budgets(made)
    over = tuple(replace(one, measured_bytes=10**6) for one in made.devices if one.group == "medium")
    assert "4 devices have steps above it" in captions.of_budgets(replace(made, devices=over))
    assert "No dot" not in captions.of_budgets(replace(made, devices=()))


def test_the_clock_says_how_long_the_run_took_and_a_round_who_was_longest(made):
    assert captions.of_clock([made]).startswith("The run took 4 hours on its clock.")
    assert captions.of_clock([made, made]).startswith("Time and energy are counted")
    assert made.timeline is not None
    text = captions.of_round(replace(made.timeline, left_out=3))
    assert "device 7 worked longest, most of it computing" in text
    assert text.endswith("The 3 devices that finished first are left out.")
    assert captions.of_round(replace(made.timeline, bars=())) == "One bar per device."
