"""What a run is doing now: written beside its records, and removed at its end."""

from __future__ import annotations

import json

import pytest

from fed_asi.results.now import Now, Telling, read_now
from fed_asi.results.progress import Unwatched
from fed_asi.results.schema import DeviceRoundRecord, RoundRecord


def test_a_stage_is_said_at_once_and_its_steps_every_second(tmp_path):
    seconds = [0.0]
    with Telling(Unwatched(), tmp_path, lambda: seconds[0]) as telling:
        telling.stage("features of 90 images", 90)
        assert read_now(tmp_path) == Now("features of 90 images", 0, 90)
        telling.advance(30)
        assert read_now(tmp_path) == Now("features of 90 images", 0, 90)
        seconds[0] = 1.0
        telling.advance(30)
        found = read_now(tmp_path)
        assert found == Now("features of 90 images", 60, 90)
        assert found.text == "features of 90 images: 60 of 90"
        telling.round_started(2, 10, 4)
        seconds[0] = 2.5
        telling.device_done(DeviceRoundRecord(2, 0, "trained"))
        telling.round_done(RoundRecord(2, 4, 1, 1.0, 0.5))
        assert read_now(tmp_path) == Now("round 2 of 10, devices that answered", 1, 4)
    assert list(tmp_path.iterdir()) == []


def test_what_it_is_told_is_passed_on(tmp_path):
    told = []

    class Other(Unwatched):
        def stage(self, text, total=None):
            told.append((text, total))

        def note(self, text):
            told.append(text)

    with Telling(Other(), tmp_path) as telling:
        telling.stage("a", 3)
        telling.note("b")
    assert told == [("a", 3), "b"]


def test_a_folder_that_cannot_be_written_costs_the_run_nothing(tmp_path):
    with Telling(Unwatched(), tmp_path / "not there") as telling:
        telling.stage("a")
        telling.advance()


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "{}", json.dumps({"version": 2, "stage": "a", "done": 1}), '{"version": 1, "stage": 3, "done": 1}',
     '{"version": 1, "stage": "a", "done": "1"}', '{"version": 1, "stage": "a", "done": 1, "total": "x"}', "\x00"],
)  # fmt: skip
def test_a_file_that_does_not_say_it_is_none(tmp_path, text):
    (tmp_path / "now.json").write_text(text)
    assert read_now(tmp_path) is None


def test_a_stage_without_a_number_is_its_text():
    assert Now("starting").text == "starting"
