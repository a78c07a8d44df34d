"""Measured steps are the steps that are counted, and the network is left unchanged."""

from __future__ import annotations

import pytest

from fed_asi.training import measuring
from fed_asi.training.measuring import CHECKPOINTING, least, measure


def test_every_form_at_every_batch_has_its_work_and_its_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measuring, "_REPEATS", 1)
    monkeypatch.setattr(measuring, "_LEAST_SECONDS", 0.0)
    monkeypatch.setattr(measuring, "RESOLUTION", 32)
    said: list[str] = []
    found = list(
        measure(["tiny"], ["vanilla", "asi(ranks=(8, 8, 3, 3))", CHECKPOINTING], [1, 2], said.append)
    )
    assert [(one.form, one.batch) for one in found[::2]] == [
        ("vanilla", 1),
        ("asi(ranks=(8, 8, 3, 3))", 1),
        (CHECKPOINTING, 1),
    ]
    assert said == ["tiny"]
    assert all(one.seconds > 0 for one in found)
    plain, twice = (
        next(one.work for one in found if one.form == form) for form in ("vanilla", CHECKPOINTING)
    )
    assert twice.macs > plain.macs
    assert found[1].work.macs == 2 * found[0].work.macs


def test_the_least_of_several_repeats() -> None:
    calls: list[int] = []
    assert least(lambda: calls.append(1)) >= 0
    assert len(calls) > 3
