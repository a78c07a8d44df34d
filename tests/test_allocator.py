"""What a step frees stays with its process."""

from __future__ import annotations

import subprocess
import sys

import pytest

from fed_asi.allocator import VARIABLES, allocator_variables

FAULTS = """
import resource
from fed_asi.allocator import keep_freed_memory
if {keeps}:
    keep_freed_memory()
block = bytes(2**26)  # bytes() asks for zeroed memory; from the heap it is written to, fresh or not
del block
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
before = faults()
for _ in range(10):
    block = bytearray(b"1") * 2**26
    del block
print(faults() - before)
"""


def page_faults(*, keeps: bool, environment: dict[str, str] | None = None) -> int:
    """Return how many fresh pages ten blocks of 64 MiB take, one after another."""
    command = [sys.executable, "-c", FAULTS.format(keeps=keeps)]
    answer = subprocess.run(command, env=environment or {}, capture_output=True, text=True, check=True)
    return int(answer.stdout)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's allocator")
def test_blocks_are_used_again() -> None:
    given_back = page_faults(keeps=False)
    assert page_faults(keeps=True) < given_back / 4
    assert page_faults(keeps=False, environment=VARIABLES) < given_back / 4
    asked = {"MALLOC_MMAP_THRESHOLD_": "4096", "MALLOC_TRIM_THRESHOLD_": "0"}
    assert page_faults(keeps=True, environment=asked) > given_back / 4  # the user's own are kept


def test_the_users_own_settings_are_passed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    assert allocator_variables() == VARIABLES
    monkeypatch.setenv("MALLOC_TRIM_THRESHOLD_", "7")
    assert allocator_variables() == {**VARIABLES, "MALLOC_TRIM_THRESHOLD_": "7"}
