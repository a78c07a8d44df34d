"""What the containers share, and how they log."""

from __future__ import annotations

import pytest

from deploy import settings


def test_wait_for_ends_by_itself():
    assert settings.wait_for(lambda: True, 0)
    assert not settings.wait_for(lambda: False, 0.01, interval=0.001)


@pytest.mark.parametrize(("profiles", "expected"), [("", False), ("secure", False), ("x,insecure", True)])
def test_insecure_is_a_profile_asked_for_by_name(monkeypatch, profiles, expected):
    monkeypatch.setenv("FED_ASI_PROFILES", profiles)
    assert settings.insecure() is expected


def test_insecure_is_not_the_default(monkeypatch):
    monkeypatch.delenv("FED_ASI_PROFILES", raising=False)
    assert not settings.insecure()


def test_the_log_has_lines_and_mistakes_an_exit_code(capsys):
    settings.say("page", "up")
    assert settings.fail("runner", "no disk: make room") == 2
    said = capsys.readouterr()
    assert said.out == "[page] up\n"
    assert said.err == "[runner] error: no disk: make room\n"
