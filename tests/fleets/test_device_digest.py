"""The digest of a fleet's devices: it depends on the content of files, not on their paths."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fed_asi.fleets import fleet
from fed_asi.fleets.device_digest import device_digest
from runs import small


def digest(**told: Any) -> str | None:
    group = {"name": "g", "count": 3, "budget": "unlimited", **told}
    return device_digest(fleet.build(small(groups=[group])))


def traced(path: Path, content: str) -> str | None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(content)
    return digest(device="rp2040", presence={"kind": "trace", "trace": str(path)})


def test_devices_that_say_nothing_have_none() -> None:
    assert digest() is None


def test_hardware_and_presence_tell_fleets_apart() -> None:
    told: list[dict[str, Any]] = [
        {"device": "rp2040"},
        {"device": "stm32f746"},
        {"device": {"preset": "rp2040", "spread": 0.1}},
        {"device": {"preset": "rp2040", "up_bits_per_second": 1e5}},
        {"device": "rp2040", "presence": "daily"},
    ]
    assert len({digest(**one) for one in told}) == len(told)
    assert digest(**told[0]) == digest(**told[0])


def test_a_trace_counts_by_what_is_in_it(tmp_path: Path) -> None:
    here = traced(tmp_path / "a" / "x.csv", "x,0,100\n")
    assert here == traced(tmp_path / "b" / "y.csv", "x,0,100\n")
    assert here != traced(tmp_path / "c" / "x.csv", "x,0,99\n")
