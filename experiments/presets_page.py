"""Write the page of device presets: every number with its source.

python experiments/presets_page.py > docs/reference/presets.md
"""

from __future__ import annotations

from collections.abc import Iterator

from fed_asi.fleets import hardware
from fed_asi.fleets.hardware import Hardware, Preset
from fed_asi.units import format_bytes

HEAD = """# Presets of devices

The devices that `device = "NAME"` in a [fleet file](fleet_file.md#a-device) can name, with the source of each number.
The page is written by `python experiments/presets_page.py > docs/reference/presets.md` from the files in
`fed_asi/fleets/presets/`; [the clock](../explanation/clock.md) says how the numbers are used. An *estimate* is a number
that we found in no public document; its *how* says how it was made. Better numbers are welcome.

| preset | device | dense MACs / s | bytes / s | bits / s down, up | power while computing | RAM, flash | estimates |
|---|---|---|---|---|---|---|---|"""


def row(name: str, preset: Preset) -> str:
    """Return a preset's row of the first table."""
    found = preset.hardware
    estimates = sum(source.is_estimate for source in preset.sources.values())
    cells = (
        f"`{name}`", preset.title, number(found.dense_per_second), number(found.bytes_per_second),
        f"{number(found.down_bits_per_second)}, {number(found.up_bits_per_second)}", f"{found.compute_watts:g} W",
        f"{_size(found.ram_bytes)}, {_size(found.flash_bytes)}", f"{estimates} of {len(preset.sources)}",
    )  # fmt: skip
    return f"| {' | '.join(cells)} |"


def number(value: float | None) -> str:
    """Return a rate with three digits and a prefix for thousands (k, M, G)."""
    if value is None:
        return "-"
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:.3g} {letter}"
    return f"{value:.3g}"


def _size(size: int | None) -> str:
    return "-" if size is None else format_bytes(size).replace(".0 ", " ")


def origins(preset: Preset) -> Iterator[str]:
    """Yield a row for each number of a preset, in the order of its file, so that "the same" refers to the row above."""
    for key, source in preset.sources.items():
        licence = f", {source.licence}" if source.licence else ""
        where = "estimate" if source.is_estimate else f"[{_short(source.url)}]({source.url}){licence}"
        yield f"| `{key}` | {_value(preset.hardware, key)} | {where} | {source.how} |"


def _value(found: Hardware, key: str) -> str:
    if key in {"ram", "flash"}:
        return _size(getattr(found, f"{key}_bytes"))
    return f"{getattr(found, key):.3g}"


def _short(url: str) -> str:
    parts = url.split("://")[1].split("/")
    return "/".join(parts[1:3]) if parts[0] == "github.com" else "/".join(parts)


def page() -> str:
    """Return the page."""
    presets = {name: hardware.preset(name) for name in hardware.names()}
    lines = [HEAD, *(row(name, preset) for name, preset in presets.items())]
    for name, preset in presets.items():
        lines += [
            "",
            f"## {name}",
            "",
            "| key | value | source | how |",
            "|---|---|---|---|",
            *origins(preset),
        ]
    return "\n".join(lines)


if __name__ == "__main__":
    print(page())
