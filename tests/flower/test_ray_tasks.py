"""Calls on Ray on this machine: results come back, and whatever raises or dies is reported once."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]
ROOT = Path(__file__).parents[2]

CODE = """
import operator, os
from fed_asi.flower.ray_tasks import RayTasks

tasks = RayTasks("local", limit=2)
assert tasks.free() == 2
assert list(tasks.ended(0.0)) == []
tasks.begin("sum", operator.add, 1, 2)
tasks.begin("raises", operator.truediv, 1, 0)
assert tasks.free() == 0
found = {}
while len(found) < 2:
    found |= {name: (result, cause) for name, result, cause in tasks.ended(5.0)}
assert found["sum"] == (3, None)
assert found["raises"][0] is None and found["raises"][1].startswith("its Ray task ended: "), found
tasks.begin("dies", os._exit, 3)
for name, result, cause in tasks.ended(120.0):
    assert (name, result) == ("dies", None) and cause.startswith("its Ray task ended: "), cause
    break
else:
    raise AssertionError("it was never said")
tasks.begin("late", __import__("time").sleep, 600)
tasks.stop()
print("all is well")
"""


def test_calls_end_with_their_result_or_a_cause() -> None:
    done = subprocess.run([sys.executable, "-c", CODE], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stdout.endswith("all is well\n"), done.stderr
