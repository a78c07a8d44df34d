"""What a device's error reply means: one outcome, and a cause in plain words."""

from __future__ import annotations

import pytest

from fed_asi.flower.failures import meaning


@pytest.mark.parametrize(
    ("code", "reason", "expected"),
    [
        (0, "timeout: device 3 passed its deadline", ("timeout", "device 3 passed its deadline")),
        (0, "killed: signal 9", ("killed", "killed: signal 9")),
        (
            0,
            "ray.exceptions.OutOfMemoryError: ...",
            ("killed", "out of memory: Ray ended its worker process"),
        ),
        (5, "", ("failed", "device unreachable (stopped, or no heartbeat)")),
        (2, "RunError: no such folder\n  at ...", ("failed", "RunError: no such folder")),
        (2, "", ("failed", "Flower error 2")),
    ],
)
def test_an_error_reply_is_one_outcome_and_its_cause(
    code: int, reason: str, expected: tuple[str, str]
) -> None:
    assert meaning(code, reason) == expected
