"""Write the presets of boards and phones, fitted to ncnn's published table with our own counts of its networks.

    git clone --depth 1 https://github.com/Tencent/ncnn   # its benchmark/README.md, BSD-3-Clause
    python experiments/device_presets.py ncnn/benchmark/README.md fed_asi/fleets/presets

Each device's rates are fitted to its seconds for ten networks, using all cores of the table's first block. Where ncnn
computes in half precision (cores from Cortex-A76 on, Kryo 485), it is assumed to be twice as fast as float32. Links are
the mean of FLASH's 19 networks. Numbers that no public document gives are marked as estimates. The presets of
microcontrollers are written by hand.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import fx

from fed_asi import models
from fed_asi.compression import cut
from fed_asi.compression.graph import Tracer
from fed_asi.fleets.fitting import costs_of, fitted
from fed_asi.fleets.hardware import Hardware
from fed_asi.memory.work import Work, network_of

NETWORKS = {
    "squeezenet": "squeezenet1_1", "mobilenet_v2": "mobilenet_v2", "mobilenet_v3": "mobilenet_v3_large",
    "shufflenet_v2": "shufflenet_v2_x0_5", "mnasnet": "mnasnet1_0", "efficientnet_b0": "efficientnet_b0",
    "googlenet": "googlenet", "resnet18": "resnet18", "alexnet": "alexnet", "resnet50": "resnet50",
}  # fmt: skip
NCNN = "https://github.com/Tencent/ncnn/blob/a4d2ea1d4422c9e849f166fd7a4aefb52f942f6a/benchmark/README.md"
FLASH = "https://github.com/PKU-Chengxu/FLASH/blob/70e47eb2a802e1c79e1a9f9f84a4aee818cd15a8/models/speed_distri.json"
# Means over FLASH's 19 networks of down_u and up_u, KiB/s.
DOWN_KIB, UP_KIB = 5854.1, 3665.3
SIZES = {
    "dense_per_second": 3e9,
    "depthwise_per_second": 6e8,
    "elements_per_second": 1e9,
    "bytes_per_second": 3e9,
}
Number = tuple[float | str, str, str]  # value, source, how


@dataclass(frozen=True, slots=True)
class Board:
    """section: the heading in the table. threads: of the block to read. half: whether ncnn computes in half floats."""

    title: str
    section: str
    threads: int
    half: bool
    ram: str
    power: Mapping[str, Number]
    sources: Mapping[str, tuple[str, str]] = field(default_factory=dict)


def estimate(value: float | str, how: str) -> Number:
    return value, "estimate", how


TOP500 = ("https://github.com/geerlingguy/top500-benchmark/issues/18", "")
CM4 = ("https://github.com/geerlingguy/top500-benchmark/issues/33", "")
ZERO = ("https://github.com/OpenTrafficCam/OTCamera/issues/70", "")
POET = (
    "https://github.com/ShishirPatil/poet/blob/b18a421b3cf879aec12c13c749368d6527d7f839/poet/chipsets.py",
    "Apache-2.0",
)
PHONE = {
    "idle_watts": estimate(0.03, "a phone asleep, its screen not counted"),
    "compute_watts": estimate(3.5, "all big cores of a phone, its screen not counted"),
    "radio_watts": estimate(1.0, "Wi-Fi while sending"),
    "battery_joules": estimate(2900.0, "5 % of a 15 Wh battery, which an owner may be willing to give"),
    "charge_watts": estimate(0.0, "not charged while it trains"),
}
BOARDS = {
    "raspberry-pi-zero-2-w": Board(
        "Raspberry Pi Zero 2 W: four Cortex-A53 cores at 1.0 GHz", "Raspberry Pi Zero 2 W", 4, False, "512 MiB",
        {"idle_watts": (0.69, "otcamera", "0.13 A at 5.3 V"),
         "compute_watts": estimate(2.2, "three times idle, as Raspberry Pis of this class draw under full load"),
         "radio_watts": estimate(1.2, "idle plus 0.5 W for Wi-Fi")},
        {"otcamera": ZERO},
    ),
    "raspberry-pi-3": Board(
        "Raspberry Pi 3 B+: four Cortex-A53 cores at 1.4 GHz", "Raspberry Pi 3 Model B+", 4, False, "1 GiB",
        {"idle_watts": estimate(1.9, "an idle Pi 3"),
         "compute_watts": (4.9, "poet", "600 mA at 5 V, plus idle"),
         "radio_watts": estimate(2.6, "idle plus 0.7 W for Wi-Fi")},
        {"poet": POET},
    ),
    "raspberry-pi-4": Board(
        "Raspberry Pi 4 B: four Cortex-A72 cores at 1.8 GHz", "Raspberry Pi 4 Model B", 4, False, "4 GiB",
        {"idle_watts": estimate(2.7, "an idle Pi 4"),
         "compute_watts": (5.2, "top500", "HPL on the Compute Module 4, which has the same processor"),
         "radio_watts": estimate(3.4, "idle plus 0.7 W for Wi-Fi")},
        {"top500": CM4},
    ),
    "raspberry-pi-5": Board(
        "Raspberry Pi 5: four Cortex-A76 cores at 2.4 GHz", "Raspberry Pi 5 Broadcom BCM2712, Cortex", 4, True, "8 GiB",
        {"idle_watts": estimate(3.3, "an idle Pi 5"),
         "compute_watts": (11.0, "top500", "HPL on all four cores"),
         "radio_watts": estimate(4.0, "idle plus 0.7 W for Wi-Fi")},
        {"top500": TOP500},
    ),
    "snapdragon-410": Board("A phone of 2014: Snapdragon 410, four Cortex-A53 cores at 1.2 GHz",
                            "Qualcomm MSM8916 Snapdragon 410", 4, False, "1 GiB", PHONE),
    "snapdragon-835": Board("A phone of 2017: Snapdragon 835, its four big cores",
                            "Qualcomm MSM8998 Snapdragon 835", 4, False, "4 GiB", PHONE),
    "snapdragon-855": Board("A phone of 2019: Snapdragon 855+, its four big cores",
                            "Qualcomm SM8150-AC Snapdragon 855+", 4, True, "8 GiB", PHONE),
}  # fmt: skip


def works() -> dict[str, Work]:
    """Return the work of a forward pass of each network on one image of 224x224."""
    found = {}
    for name, ours in NETWORKS.items():
        model = models.build(ours, 1000, None, 224).eval()
        quick = cut.folded(fx.GraphModule(model, Tracer().trace(model)))
        found[name] = network_of(quick, torch.zeros(1, 3, 224, 224)).forward(1)
    return found


def measured(text: str, board: Board) -> dict[str, float]:
    """Return a device's minimum seconds in the table, by network."""
    section = text.split(f"### {board.section}", 1)[1].split("\n### ", 1)[0]
    for block in section.split("loop_count")[1:]:
        gpu = re.search(r"gpu_device = (-?\d+)", block)
        if f"num_threads = {board.threads}\n" in block and (gpu is None or gpu[1] == "-1"):
            return {
                name: float(ms) / 1e3 for name, ms in re.findall(r"^\s*(\w+)\s+min =\s*([\d.]+)", block, re.M)
            }
    raise SystemExit(f"no block of {board.threads} threads for {board.section}")


def rates(board: Board, seconds: Mapping[str, float], counted: Mapping[str, Work]) -> dict[str, Number]:
    """Return the rates in float32 and int8."""
    names = [name for name in counted if name in seconds]
    guess = Hardware("", **SIZES, call_seconds=5e-6)
    found = fitted([counted[name] for name in names], [seconds[name] for name in names], guess)
    costs = costs_of(Hardware("", **found))
    off = [abs(float(np.array(counted[name]) @ costs) / seconds[name] - 1) for name in names]
    faster = float(np.median([seconds[n] / seconds[f"{n}_int8"] for n in names if f"{n}_int8" in seconds]))
    share = 0.5 if board.half else 1.0
    half = ", halved, as ncnn computes in half precision here" if board.half else ""
    how = f"fitted to {len(names)} networks on {board.threads} cores, median error {100 * np.median(off):.0f} %{half}"
    made: dict[str, Number] = {}
    for key, value in found.items():
        if key == "call_seconds":
            made[key] = estimate(
                float(f"{value:.2g}"), "a kernel of a compiled runtime; the table says little about it"
            )
        else:
            made[key] = (float(f"{value * share:.3g}"), "ncnn", how)
    for key in ("dense", "depthwise", "elements"):
        value = found[f"{key}_per_second"] * faster
        made[f"int8_{key}_per_second"] = (
            float(f"{value:.3g}"),
            "ncnn",
            f"{faster:.2f} times as fast as ncnn's floats, the median of its int8 networks",
        )
    return made


def write(
    path: Path, board: Board, numbers: Mapping[str, Number], sources: Mapping[str, tuple[str, str]]
) -> None:
    lines = ["version = 1", f'title = "{board.title}"']
    for key, (value, source, how) in numbers.items():
        written = f'"{value}"' if isinstance(value, str) else repr(value)
        lines.append(f'{key} = {{ value = {written}, source = "{source}", how = "{how}" }}')
    for name, (url, licence) in sources.items():
        lines += ["", f"[sources.{name}]", f'url = "{url}"', *([f'licence = "{licence}"'] if licence else [])]
    path.write_text("\n".join(lines) + "\n")


def main() -> None:
    text, folder, counted = Path(sys.argv[1]).read_text(), Path(sys.argv[2]), works()
    for name, board in BOARDS.items():
        mean = "mean of 19 networks"
        numbers = rates(board, measured(text, board), counted) | {
            "down_bits_per_second": (DOWN_KIB * 8192, "flash", mean),
            "up_bits_per_second": (UP_KIB * 8192, "flash", mean),
            "latency_seconds": estimate(0.05, "a message to a server in the same country over Wi-Fi"),
            **board.power,
            "ram": estimate(board.ram, "as sold"),
            "flash": estimate("32 GiB", "a memory card or a phone's storage"),
        }
        sources = {"ncnn": (NCNN, "BSD-3-Clause"), "flash": (FLASH, "BSD-2-Clause"), **board.sources}
        write(folder / f"{name}.toml", board, numbers, sources)
        print(name, {key: value for key, (value, *_) in numbers.items()})


if __name__ == "__main__":
    main()
