"""A run's settings as readers see them."""

from __future__ import annotations

import json

from fed_asi import own_code
from fed_asi.results.settings import shown_settings, without_code
from runs import small

TEXT = "a = 1\nb = 2\n"


def test_settings_without_code_are_shown_as_they_are_but_for_its_key():
    shown = json.loads(shown_settings(small().to_json()))
    assert "code" not in shown
    assert shown == without_code(small().to_json())
    assert {**shown, "code": {}} == json.loads(small().to_json())


def test_of_code_its_length_is_shown():
    address = f"net.py@{own_code.digest_of(TEXT)}"
    text = small(code={address: TEXT}).to_json()
    assert json.loads(shown_settings(text))["code"] == {address: "2 lines"}
    assert "b = 2" not in shown_settings(text)
    assert "code" not in without_code(text)


def test_settings_of_before_there_was_code_stay_as_they_are():
    old = {key: value for key, value in json.loads(small().to_json()).items() if key != "code"}
    assert shown_settings(json.dumps(old)) == json.dumps(old)
