"""Sizes: how people write them, and how they are shown."""

from __future__ import annotations

import pytest

from fed_asi.errors import ConfigError
from fed_asi.units import format_bytes, format_joules, format_seconds, parse_bytes, told_apart


@pytest.mark.parametrize(
    ("written", "size"),
    [
        ("256 KiB", 262144),
        ("1.5MiB", 1572864),
        ("4096", 4096),
        (4096, 4096),
        ("1 gib", 1024**3),
        ("unlimited", None),
        (None, None),
        ("12 B", 12),
    ],
)
def test_parse_bytes(written: str | int | None, size: int | None) -> None:
    assert parse_bytes(written) == size


@pytest.mark.parametrize("written", ["", "KiB", "-3 KiB", "0", 0, -1, "12 MB", "3 parsecs", True, 1.5])
def test_parse_bytes_refuses(written: object) -> None:
    with pytest.raises(ConfigError, match="size"):
        parse_bytes(written)  # type: ignore[arg-type]


def test_format_bytes() -> None:
    assert [format_bytes(n) for n in (512, 93696, 1024**2, 3 * 1024**3, None)] == [
        "512 B",
        "91.5 KiB",
        "1.0 MiB",
        "3.0 GiB",
        "unlimited",
    ]


def test_a_size_and_its_limit_never_read_the_same() -> None:
    assert told_apart(163_840, 12_288) == ("160.0 KiB", "12.0 KiB")
    assert told_apart(163_840, 163_848) == ("163,840 B", "163,848 B")
    assert told_apart(163_840, 163_840) == ("160.0 KiB", "160.0 KiB")


TOO_LARGE: dict[str, str | int] = {
    "2**63": 2**63,
    "digits": "9" * 400,
    "GiB": "9" * 400 + " GiB",
    "unit": "8388608 TiB",
    "more digits than Python writes": 10**5000,
    "text": "x" * 9000,
}


@pytest.mark.parametrize("name", TOO_LARGE)
def test_what_no_record_could_hold_is_refused_on_a_short_line(name: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_bytes(TOO_LARGE[name])
    assert len(str(caught.value)) < 250
    assert parse_bytes(2**63 - 1) == 2**63 - 1


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0, "0 seconds"),
        (4.236, "4.24 seconds"),
        (900.0, "15 minutes"),
        (9000.0, "2.5 hours"),
        (6e5, "6.94 days"),
    ],
)
def test_times_for_people(seconds: float, text: str) -> None:
    assert format_seconds(seconds) == text


@pytest.mark.parametrize(
    ("joules", "text"), [(0.0, "0 J"), (47.31, "47.3 J"), (1200.0, "1.2 kJ"), (3.4e6, "3.4 MJ")]
)
def test_energies_for_people(joules: float, text: str) -> None:
    assert format_joules(joules) == text
