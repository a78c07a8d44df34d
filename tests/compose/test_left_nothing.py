"""Runs after test_fleet.py, whose containers, networks and volumes must be gone by then."""

from __future__ import annotations

import pytest

from tests.compose.stack import docker


@pytest.mark.compose
@pytest.mark.parametrize("words", [["ps", "--all"], ["volume", "ls"], ["network", "ls"]])
def test_left_nothing_behind(image, words):
    assert not docker(*words, "--quiet", "--filter", "name=fed-asi-test-").stdout.split()
