"""What a watcher prints: a line per round without a terminal, bars with one."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from fed_asi.results.progress import Terminal, Unwatched, Watcher
from fed_asi.results.schema import DeviceRoundRecord, RoundRecord


def watch(watcher: Watcher) -> None:
    watcher.stage("features of 10 images", 10)
    watcher.advance(10)
    watcher.note("weights: [from] there")
    watcher.round_done(RoundRecord(0, 0, 0, 2.3, 0.125))
    watcher.round_started(1, 2, 2)
    watcher.device_done(DeviceRoundRecord(1, 0, "trained"))
    watcher.device_done(DeviceRoundRecord(1, 1, "killed"))
    watcher.round_done(RoundRecord(1, 2, 1, 1.0, 0.5, host_seconds=1.25))


@pytest.mark.parametrize("terminal", [False, True])
def test_lasting_lines(terminal):
    console = Console(file=io.StringIO(), width=80, force_terminal=terminal, color_system=None)
    with Terminal(console) as watcher:
        watch(watcher)
    text = console.file.getvalue()
    assert "weights: [from] there" in text
    assert "start: accuracy 12.5 %, before any training, 0.0 s" in text
    assert "round 1/2: accuracy 50.0 %, 1 of 2 devices trained, 1 killed, 1.2 s" in text
    assert ("\x1b" in text) is terminal
    assert text.splitlines()[0] == "features of 10 images" or terminal


def test_unwatched_is_a_watcher():
    watch(Unwatched())
