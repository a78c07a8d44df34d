"""`fed-asi calibrate-device`: measure how fast this machine trains, and write it as a device that fleet files can name.

It takes about a minute with one thread. Two things cannot be measured here: the network link, which --link describes,
and power, which you add to the file by hand.
"""

from __future__ import annotations

import argparse
import statistics
from pathlib import Path

import numpy as np

from fed_asi.commands.console import OK, add_output, answer, bar, say, show
from fed_asi.errors import ConfigError
from fed_asi.files import check_writable, write_text
from fed_asi.fleets.fitting import KEYS, costs_of, fitted
from fed_asi.fleets.hardware import Hardware, load, problem_of, to_toml
from fed_asi.texts import visible
from fed_asi.training.measuring import Measured, measure

# None of these is among the networks on which docs/explanation/clock.md tests the rates.
NETWORKS = ("mcunet-in4", "mnasnet1_0", "squeezenet1_1", "resnet50")
FORMS = (
    "vanilla",
    "bias",
    "quantized(bits=8)",
    "asi(ranks=(8, 8, 3, 3))",
    "asi(ranks=(4, 16, 4, 4), bits=8, warm=False)",
)
BATCHES = (1, 8, 32)
GUESS = Hardware(
    dense_per_second=2e10,
    depthwise_per_second=4e9,
    elements_per_second=1e9,
    bytes_per_second=6e9,
    call_seconds=1e-5,
)
EXAMPLE = "fed-asi calibrate-device --out this-machine.toml"
LINK = ("down_bits_per_second", "up_bits_per_second", "latency_seconds")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("this-machine.toml"),
        metavar="FILE",
        help="the file to write; default %(default)s",
    )
    parser.add_argument("--link", default="50e6,10e6,0.05", metavar="DOWN,UP,LATENCY",
                        help="bits per second down and up, and seconds of latency; default %(default)s")  # fmt: skip
    add_output(parser)


def main(given: argparse.Namespace) -> int:
    """Measure, fit the rates, and write the file; return the exit code."""
    link = _link(given.link)
    check_writable(given.out)
    taken = _measured()
    rates = fitted([one.work for one in taken], [one.seconds for one in taken], GUESS)
    off = errors(taken, Hardware.of("this machine", rates))
    how = (
        f"fitted to {len(taken)} steps of {len(NETWORKS)} networks, one thread, "
        f"median error {100 * statistics.median(off):.0f} %"
    )
    numbers: dict[str, tuple[float | str, str]] = {key: (float(f"{rates[key]:.4g}"), how) for key in KEYS}
    numbers |= {key: (value, "as given to fed-asi calibrate-device --link") for key, value in link.items()}
    write_text(given.out, to_toml("this machine, one thread, as torch runs on it", numbers))
    load(given.out)  # check that the file can be read back
    show(f"{visible(given.out)}: {how}")
    answer(file=given.out, steps=len(taken), median_error=statistics.median(off))
    return OK


def _measured() -> list[Measured]:
    """Return the measured steps of every network, for every form and batch size."""
    total, taken = len(NETWORKS) * len(FORMS) * len(BATCHES), list[Measured]()
    with bar("measuring steps") as progress:
        for one in measure(NETWORKS, FORMS, BATCHES, lambda name: say(f"measuring steps of {name}")):
            taken.append(one)
            progress(len(taken), total)
    return taken


def errors(taken: list[Measured], hardware: Hardware) -> list[float]:
    """Return the relative error of each predicted step, sorted."""
    costs = costs_of(hardware)
    return sorted(abs(float(np.array(one.work) @ costs) / one.seconds - 1) for one in taken)


def _link(text: str) -> dict[str, float]:
    """Return the link's numbers. Raises ConfigError unless there are exactly three."""
    parts = text.split(",")
    try:
        values = [float(part) for part in parts]
    except ValueError:
        values = []
    if len(values) != len(LINK):
        raise ConfigError(
            f"--link: three numbers with commas between them, such as 50e6,10e6,0.05, not {text!r}"
        )
    wrong = [
        one for key, value in zip(LINK, values, strict=True) if (one := problem_of(key, value)) is not None
    ]
    if wrong:
        raise ConfigError([f"--link: {one}" for one in wrong])
    return dict(zip(LINK, values, strict=True))
